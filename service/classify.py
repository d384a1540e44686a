"""What `digitserve classify` does: files in, a line for each out. A client of the server like any other."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from service.client import ClassifyError, Client, Prediction
from service.errors import DigitserveError

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
FILES_WORTH_A_BAR = 20


def classify_files(names: Sequence[str], address: str, *, timeout_s: float, as_json: bool) -> int:
    """Classify files, folders and standard input ("-"), with a line for each file in its order.

    Returns:
        The exit code: 0, or 1 if a file could not be classified.

    Raises:
        DigitserveError: The server cannot be reached, or a folder holds no picture.
    """
    paths = _files(names)
    # A bar for a handful of files is noise, and None hides it where no terminal is.
    bar = tqdm(total=len(paths), unit=" images", disable=True if len(paths) < FILES_WORTH_A_BAR else None)
    report = _Report(as_json, bar.update)
    # Files in their order, with what is wrong with those that are not sent.
    waiting: deque[tuple[str, str | None]] = deque()

    def report_unsent() -> None:
        while waiting and (problem := waiting[0][1]) is not None:
            report(waiting.popleft()[0], problem)

    with Client(address, timeout_s=timeout_s) as client, one_line(address), bar:
        max_bytes = client.model().max_image_bytes

        def pictures() -> Iterator[bytes]:
            for path in paths:
                data = _read(path, max_bytes)
                waiting.append((path, data if isinstance(data, str) else None))
                if isinstance(data, bytes):
                    yield data

        for result in client.classify_stream(pictures()):
            report_unsent()
            path, _ = waiting.popleft()
            report(path, result.message if isinstance(result, ClassifyError) else result)
        report_unsent()
    return 1 if report.failed else 0


def _read(path: str, max_bytes: int) -> bytes | str:
    """What is in a file, or why it cannot be sent."""
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        return error.strerror or "cannot be read"
    return data if len(data) <= max_bytes else f"has more bytes than the server's limit of {max_bytes} for an image"


class _Report:
    """Writes a line for each file, and counts what failed."""

    def __init__(self, as_json: bool, advance: Callable[[], object]):
        self.failed = 0
        self._as_json = as_json
        self._advance = advance

    def __call__(self, path: str, outcome: Prediction | str) -> None:
        self.failed += isinstance(outcome, str)
        if self._as_json:
            facts = {"error": outcome} if isinstance(outcome, str) else dataclasses.asdict(outcome)
            tqdm.write(json.dumps({"file": path, **facts}))
        elif isinstance(outcome, str):
            tqdm.write(f"digitserve: {_printable(path)}: {outcome}", file=sys.stderr)
        else:
            doubt = f"  ({outcome.rejection_reason})" if outcome.rejected else ""
            tqdm.write(f"{outcome.digit}  {outcome.confidence:7.2%}  {_printable(path)}{doubt}")
        self._advance()


def _printable(path: str) -> str:
    """A file name without line breaks, terminal commands and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)


@contextlib.contextmanager
def one_line(address: str) -> Iterator[None]:
    """Let a call that fails end the command."""
    try:
        yield
    except ClassifyError as error:
        raise DigitserveError(f"{address}: {error}") from error


def _files(names: Sequence[str]) -> list[str]:
    """The files meant by the arguments: folders stand for the pictures in them."""
    files: list[str] = []
    for name in names:
        # os.path's answers False where a name is too long or a folder may not be entered; reading it says why.
        if os.path.isdir(name):  # noqa: PTH112
            inside = sorted(
                str(p) for p in Path(name).rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()
            )
            if not inside:
                raise DigitserveError(f"{name}: the folder holds no {', '.join(sorted(PICTURE_SUFFIXES))} file")
            files += inside
        else:
            files.append(name)
    return files
