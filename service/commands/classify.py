"""What `digitserve classify` does: files in, a line for each out. A client of the server like any other."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Never

from tqdm import tqdm

from service.client import Access, ClassifyError, Client, Prediction
from service.errors import DigitserveError

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
FILES_WORTH_A_BAR = 20


Outcome = Prediction | ClassifyError | str


def classify_files(names: Sequence[str], address: str, access: Access, *, timeout_s: float, as_json: bool) -> int:
    """Classify files, folders and standard input ("-"), with a line for each file in its order.

    Returns:
        The exit code: 0, or 1 if a file could not be classified.

    Raises:
        DigitserveError: The server cannot be reached, or a folder holds no picture.
    """
    paths = find_files(names)
    failed = 0
    client = Client(address, timeout_s=timeout_s, access=access)
    with client, one_line(address), progress_bar(len(paths)) as bar:
        for path, outcome in outcomes(client, paths):
            failed += not isinstance(outcome, Prediction)
            if as_json:
                tqdm.write(json_line(path, outcome))
            else:
                _print(path, outcome)
            bar.update()
    return 1 if failed else 0


def outcomes(client: Client, paths: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
    """Send files in one stream; for each in its order the prediction, the server's error, or why it was not sent.

    Raises:
        ClassifyError: The stream failed.
    """
    # Files in their order, with what is wrong with those that are not sent.
    waiting: deque[tuple[str, str | None]] = deque()
    max_bytes = client.model().max_image_bytes

    def pictures() -> Iterator[bytes]:
        for path in paths:
            data = _read(path, max_bytes)
            waiting.append((path, data if isinstance(data, str) else None))
            if isinstance(data, bytes):
                yield data

    def unsent() -> Iterator[tuple[str, str]]:
        while waiting and (problem := waiting[0][1]) is not None:
            yield waiting.popleft()[0], problem

    for result in client.classify_stream(pictures()):
        yield from unsent()
        yield waiting.popleft()[0], result
    yield from unsent()


def progress_bar(files: int) -> tqdm[Never]:
    """A bar for many files; None of tqdm's `disable` hides it where no terminal is."""
    return tqdm(total=files, unit=" images", disable=True if files < FILES_WORTH_A_BAR else None)


def _read(path: str, max_bytes: int) -> bytes | str:
    """What is in a file, or why it cannot be sent."""
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        return error.strerror or "cannot be read"
    return data if len(data) <= max_bytes else f"has more bytes than the server's limit of {max_bytes} for an image"


def json_line(path: str, outcome: Outcome) -> str:
    """What became of a file, as one JSON object."""
    if isinstance(outcome, Prediction):
        return json.dumps({"file": path, **dataclasses.asdict(outcome)})
    return json.dumps({"file": path, "error": message(outcome)})


def message(outcome: ClassifyError | str) -> str:
    """Why there is no prediction."""
    return outcome.message if isinstance(outcome, ClassifyError) else outcome


def complain(path: str, outcome: ClassifyError | str) -> None:
    """Say on standard error why a file was not classified."""
    tqdm.write(f"digitserve: {_printable(path)}: {message(outcome)}", file=sys.stderr)


def _print(path: str, outcome: Outcome) -> None:
    if isinstance(outcome, Prediction):
        doubt = f"  ({outcome.rejection_reason})" if outcome.rejected else ""
        tqdm.write(f"{outcome.digit}  {outcome.confidence:7.2%}  {_printable(path)}{doubt}")
    else:
        complain(path, outcome)


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


def find_files(names: Sequence[str]) -> list[str]:
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
