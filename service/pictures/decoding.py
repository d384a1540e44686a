"""Image files -> pixels, in threads: Pillow lets other Python code run while it works.

Small files are read several at a time, since to hand one to a thread costs as
much as to read it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.errors import DeadlinePassed, InvalidImage, QueueFull, without_frames
from service.pictures.images import ImageReader, Pixels
from service.runs.arrivals import let_arrive
from service.runs.threads import Threads
from service.runs.turns import CALLER, Turns

# Larger files are read one at a time: those behind one of them would wait for it while other threads are free.
SMALL_BYTES = 2048
# Small files that a thread is handed at a time, and seconds after which it gives back those it has not begun with.
MOST_FILES = 32
MOST_SECONDS = 0.002


class Observer(Protocol):
    """Whoever wants to know what was decoded."""

    def image_decoded(self, seconds: float) -> None:
        """An image file was read, or found unreadable."""


@dataclass(slots=True, eq=False)
class _Request:
    """Files that came together; `waiting` are the indices of those that no thread has."""

    caller: str
    files: Sequence[bytes]
    deadline: float | None
    waiting: deque[int]
    results: dict[int, Pixels | InvalidImage]
    future: asyncio.Future[list[Pixels | InvalidImage]]


# A file: whose, and which of theirs.
_File = tuple[_Request, int]
# What became of it, and how many seconds that took.
_Done = tuple[Pixels | Exception, float]


class Decoder:
    """Reads the image files of many requests: one of each caller in turn, and of a caller one of each request."""

    def __init__(
        self, reader: ImageReader, *, threads: int, max_images: int, observer: Observer, max_bytes: int = 1 << 40
    ):
        """Prepare.

        Args:
            reader: Turns one image file into 28x28 pixels.
            threads: Threads that read.
            max_images: Image files that may wait to be read; more are refused, but for an eighth that is kept for
                callers of whom nothing waits and who send a few.
            observer: Told of every file.
            max_bytes: Of the files that may wait, likewise.
        """
        self._reader = reader
        self._max_images = max_images
        self._images = 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._requests: Turns[_Request] = Turns()
        self._threads = Threads(self._read, count=threads, name="decode")
        self._idle_threads = threads
        self._feeding: set[asyncio.Task[None]] = set()
        self._observer = observer

    def close(self) -> None:
        """Release the threads; call it when no request is in progress."""
        self._threads.close()

    async def read(self, files: Sequence[bytes], deadline: float | None = None) -> list[Pixels | InvalidImage]:
        """What the network sees of image files, or why it cannot.

        Args:
            files: As for `ImageReader.read`, at least one.
            deadline: `time.monotonic()` after which the answer is useless.

        Raises:
            QueueFull: Too many files are waiting.
            DeadlinePassed: The deadline passed before all were read.
        """
        caller, is_little = CALLER.get(), len(files) <= MOST_FILES
        if self._images + len(files) > self._requests.limit(self._max_images, caller, is_little=is_little):
            raise QueueFull(
                f"{self._images} image files wait to be read and {len(files)} more would exceed the limit "
                f"of {self._max_images} (--max-queue-images); try again a little later"
            )
        size = sum(map(len, files))
        if self._bytes and self._bytes + size > self._requests.limit(self._max_bytes, caller, is_little=is_little):
            raise QueueFull(
                f"image files of {self._bytes} bytes wait to be read and {size} more would exceed the limit "
                f"of {self._max_bytes} (--max-queue-bytes); try again a little later"
            )
        future: asyncio.Future[list[Pixels | InvalidImage]] = asyncio.get_running_loop().create_future()
        self._requests.add(_Request(caller, files, deadline, deque(range(len(files))), {}, future))
        self._images += len(files)
        self._bytes += size
        if self._idle_threads:
            self._idle_threads -= 1
            feeding = asyncio.create_task(self._feed())
            self._feeding.add(feeding)
            feeding.add_done_callback(self._feeding.discard)
        try:
            return await future
        finally:
            self._images -= len(files)
            self._bytes -= size

    async def _feed(self) -> None:
        """Keep one thread busy while files wait."""
        try:
            while self._requests:
                await let_arrive(lambda: self._images, MOST_FILES)
                if files := self._take():
                    self._hand_out(files, await self._threads.do(files))
        finally:
            self._idle_threads += 1

    def _take(self) -> list[_File]:
        """Files for a thread, one of each request in turn: small ones, or one that is larger."""
        files: list[_File] = []
        is_small = True
        while self._requests and is_small and len(files) < MOST_FILES:
            request = self._requests.pop()
            # Whoever has left, or got an error, waits for nothing.
            if request.future.done():
                continue
            is_small = len(request.files[request.waiting[0]]) <= SMALL_BYTES
            if files and not is_small:
                self._requests.put_back(request)
                break
            files.append((request, request.waiting.popleft()))
            if request.waiting:
                self._requests.add(request)
        return files

    def _read(self, files: list[_File]) -> list[_Done]:
        """Read some files, in a thread: at least the first, and no more than there is time for."""
        done: list[_Done] = []
        first = began = time.monotonic()
        for request, index in files:
            try:
                if request.deadline is not None and began >= request.deadline:
                    raise DeadlinePassed("the deadline passed before the image file was read")
                result: Pixels | Exception = self._reader.read(request.files[index])
            except InvalidImage as error:
                result = without_frames(error)
            except Exception as error:
                result = error
            ended = time.monotonic()
            done.append((result, ended - began))
            began = ended
            if ended - first > MOST_SECONDS:
                break
        return done

    def _hand_out(self, files: list[_File], done: list[_Done]) -> None:
        """Give every request what was read of it; what was not waits again, before the rest."""
        for (request, index), (result, seconds) in zip(files, done, strict=False):
            if not isinstance(result, DeadlinePassed):
                self._observer.image_decoded(seconds)
            if request.future.done():
                continue
            if isinstance(result, Exception) and not isinstance(result, InvalidImage):
                request.future.set_exception(result)
                continue
            request.results[index] = result
            if len(request.results) == len(request.files):
                request.future.set_result([request.results[n] for n in range(len(request.files))])
        for request, index in reversed(files[len(done) :]):
            request.waiting.appendleft(index)
            if request not in self._requests:
                self._requests.put_back(request)
