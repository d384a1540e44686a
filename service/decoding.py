"""Image files -> pixels, in threads: Pillow lets other Python code run while it works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from service.errors import DeadlinePassed, InvalidImage, QueueFull
from service.images import ImageReader, Pixels


class Observer(Protocol):
    """Whoever wants to know what was decoded."""

    def image_decoded(self, seconds: float) -> None:
        """An image file was read, or found unreadable."""


class Decoder:
    """Reads the image files of many callers."""

    def __init__(self, reader: ImageReader, *, threads: int, max_images: int, observer: Observer):
        """Prepare.

        Args:
            reader: Turns one image file into 28x28 pixels.
            threads: Threads that read.
            max_images: Image files that may wait to be read; more are refused.
            observer: Told of every file.
        """
        self._reader = reader
        self._threads = threads
        self._max_images = max_images
        self._waiting_images = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._observer = observer

    def close(self) -> None:
        """Release the threads; call it when no request is in progress."""
        self._executor.shutdown()

    async def read(self, files: Sequence[bytes], deadline: float | None = None) -> list[Pixels | InvalidImage]:
        """What the network sees of image files, or why it cannot.

        Args:
            files: As for `ImageReader.read`.
            deadline: `time.monotonic()` after which the answer is useless.

        Raises:
            QueueFull: Too many files are waiting.
            DeadlinePassed: The deadline passed before all were read.
        """
        if self._waiting_images + len(files) > self._max_images:
            raise QueueFull(
                f"{self._waiting_images} image files wait to be read and {len(files)} more would exceed the limit "
                f"of {self._max_images} (--max-queue-images); try again a little later"
            )
        loop = asyncio.get_running_loop()
        # A large request fills the threads, not their queue: small ones get in between.
        free = asyncio.Semaphore(self._threads)

        async def read(file: bytes) -> Pixels | InvalidImage:
            async with free:
                return await loop.run_in_executor(self._executor, self._read, file, deadline)

        self._waiting_images += len(files)
        try:
            return await asyncio.gather(*map(read, files))
        finally:
            self._waiting_images -= len(files)

    def _read(self, file: bytes, deadline: float | None) -> Pixels | InvalidImage:
        began = time.monotonic()
        if deadline is not None and began >= deadline:
            raise DeadlinePassed("the deadline passed before the image file was read")
        try:
            return self._reader.read(file)
        except InvalidImage as error:
            return error
        finally:
            self._observer.image_decoded(time.monotonic() - began)
