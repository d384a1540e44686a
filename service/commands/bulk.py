"""Classifies any number of files into a file of JSON lines, by shards, and goes on where it was stopped.

A line is written once for each file, whole, and only when asking again would
change nothing. So the file itself says what is left to do.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from service.client import Access, ClassifyError, Client, Prediction
from service.commands.classify import Outcome, complain, find_files, json_line, one_line, outcomes, progress_bar
from service.errors import DigitserveError

# How `json_line` begins.
LINE_START = b'{"file": "'


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of the files, `index` counted from 0; a file's name alone says which part it is in."""

    index: int
    count: int

    def holds(self, path: str) -> bool:
        """Whether a file is in this part."""
        return zlib.crc32(os.fsencode(path)) % self.count == self.index


def classify_into(
    out: Path, names: Sequence[str], address: str, access: Access, *, timeout_s: float, shard: Shard
) -> int:
    """Classify the files of a shard that have no line in `out` yet, and append one for each.

    A stream that breaks, because its server goes away, is begun again as long as it brings anything forward.

    Returns:
        The exit code: 0, or 1 if files are left that another run may classify.

    Raises:
        DigitserveError: The server cannot be reached, a folder holds no picture, or `out` is no such file or in use.
    """
    paths = [path for path in find_files(names) if shard.holds(path)]
    client = Client(address, timeout_s=timeout_s, access=access)
    with _Results(out) as results, client, progress_bar(len(paths)) as bar:
        left = [path for path in paths if path not in results.done]
        bar.update(len(paths) - len(left))
        while left:
            failures: list[tuple[str, ClassifyError | str]] = []
            try:
                with one_line(address):
                    for path, outcome in outcomes(client, left):
                        if isinstance(outcome, Prediction) or _is_final(outcome):
                            results.add(path, outcome)
                            bar.update()
                        else:
                            failures.append((path, outcome))
            except DigitserveError:
                if not results.done.intersection(left):
                    raise
            rest = [path for path in left if path not in results.done]
            if len(rest) == len(left):
                for path, outcome in failures:
                    complain(path, outcome)
                return 1
            left = rest
    return 0


def _is_final(outcome: ClassifyError | str) -> bool:
    """Whether asking again would change nothing; a file that cannot be read may be readable tomorrow."""
    return isinstance(outcome, ClassifyError) and outcome.code == "INVALID_ARGUMENT"


class _Results:
    """The file of results, held by one process at a time."""

    def __init__(self, path: Path):
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise DigitserveError(f"cannot write {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise DigitserveError(f"another process is writing {path}; give each shard a file of its own") from None
        self.done: set[str] = set()
        whole = 0
        with path.open("rb") as written:
            for line in written:
                if line.endswith(b"\n"):
                    whole += len(line)
                    self._remember(line, path)
                # Of a process that was killed; somebody else's file must not lose a byte.
                elif line.startswith(LINE_START) or LINE_START.startswith(line):
                    self._file.truncate(whole)
                else:
                    raise self._not_ours(path)

    def _remember(self, line: bytes, path: Path) -> None:
        try:
            self.done.add(json.loads(line)["file"])
        except (ValueError, KeyError, TypeError):
            raise self._not_ours(path) from None

    def _not_ours(self, path: Path) -> DigitserveError:
        self._file.close()
        return DigitserveError(f"{path} holds something else than results; name another file")

    def __enter__(self) -> _Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, path: str, outcome: Outcome) -> None:
        self._file.write(json_line(path, outcome).encode() + b"\n")
        self.done.add(path)
