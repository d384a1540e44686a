"""Threads that work for an event loop.

An executor of the standard library makes two futures for each piece of work
and wires them together, 20 us that a run of one image does not take itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


class Threads(Generic[Given, Result]):
    """Do one kind of work, several pieces at a time."""

    def __init__(self, work: Callable[[Given], Result], *, count: int, name: str, niceness: int = 0):
        """Start them.

        Args:
            work: Called in one of them.
            count: Threads.
            name: Theirs.
            niceness: By how much they give way to the other threads of the process, as of `nice`; on Linux only.
        """
        self._work = work
        self._niceness = niceness
        self._waiting: queue.SimpleQueue[tuple[Given, asyncio.Future[Result]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, name=f"{name}_{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Wait for what was given, and end the threads."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def do(self, given: Given) -> asyncio.Future[Result]:
        """The result of the work, to be awaited, or what it raised."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.put((given, future))
        return future

    def _serve(self) -> None:
        if self._niceness:
            give_way(self._niceness)
        while (job := self._waiting.get()) is not None:
            given, future = job
            tell: Callable[[Any], None] = future.set_result
            try:
                outcome: Any = self._work(given)
            except BaseException as error:
                tell, outcome = future.set_exception, error
            # Nobody waits any more where the loop has ended.
            with contextlib.suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(_tell, future, tell, outcome)
            # What was worked on is not kept until more comes.
            del job, given, future, tell, outcome


def give_way(niceness: int) -> None:
    """Let the scheduler prefer other threads to the one that calls, by so much; only Linux has a niceness for each."""
    if sys.platform == "linux":
        # Of this thread, whatever POSIX says.
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + niceness)


def _tell(future: asyncio.Future[Any], tell: Callable[[Any], None], outcome: Any) -> None:
    if not future.done():
        tell(outcome)
