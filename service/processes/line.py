"""Questions and answers between two processes, over a socket that only they have: one JSON object a line.

Either end asks, several questions at a time, and answers come when they are
ready. When one end is gone, whatever the other one still waits for fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from service.errors import CallError, InvalidRequest, NotReady, log_fault

# Of one question or answer; the metrics of a worker are about 30 kB.
MAX_LINE_BYTES = 64 * 1024 * 1024
# What an answer may be instead of one.
REFUSALS: dict[str, type[CallError]] = {error.status: error for error in (InvalidRequest, NotReady)}

Answer = Callable[[Any], Awaitable[Any]]


class LineClosed(Exception):
    """The other process is gone, or cannot answer any more."""


class Line:
    """One end of the line.

    Attributes:
        answers: By question: gives the answer, a JSON value, to what was said with it. May be added to.
        ended: Set when the other end is gone.
    """

    def __init__(self) -> None:
        """Prepare; `open` opens it."""
        self.answers: dict[str, Answer] = {}
        self.ended = asyncio.Event()
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        # The event loop itself keeps only weak references.
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, end: socket.socket) -> None:
        """Begin to answer, with one end of a pair of sockets."""
        reader, self._writer = await asyncio.open_connection(sock=end, limit=MAX_LINE_BYTES)
        self._do(self._read(reader))

    def close(self) -> None:
        """Hang up."""
        if self._writer:
            self._writer.close()

    async def ask(self, question: str, said: Any = None) -> Any:
        """Ask the other process.

        Args:
            question: What it has an answer for.
            said: What is said with it, a JSON value.

        Raises:
            LineClosed: It is gone, or goes before it answers.
            CallError: Its answer is a refusal.
        """
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._write({"question": question, "said": said, "number": number})
            return await answer
        finally:
            del self._waiting[number]

    def _write(self, message: dict[str, Any]) -> None:
        if self._writer is None or self.ended.is_set() or self._writer.is_closing():
            raise LineClosed
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if "question" in message:
                    self._do(self._answer(message))
                elif message["number"] in self._waiting:
                    _settle(self._waiting[message["number"]], message)
        # The other end went while it spoke.
        except (ConnectionError, ValueError):
            pass
        finally:
            self.ended.set()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(LineClosed())
            self.close()

    async def _answer(self, message: dict[str, Any]) -> None:
        number = {"number": message["number"]}
        try:
            answer = {"answer": await self.answers[message["question"]](message["said"])}
        except CallError as error:
            answer = {"refused": str(error), "status": error.status}
        except Exception as error:
            answer = {"refused": log_fault(error), "status": "INTERNAL"}
        with contextlib.suppress(LineClosed):
            self._write(number | answer)

    def _do(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _settle(answer: asyncio.Future[Any], message: dict[str, Any]) -> None:
    if answer.done():
        return
    if "refused" not in message:
        answer.set_result(message["answer"])
    elif message["status"] in REFUSALS:
        answer.set_exception(REFUSALS[message["status"]](message["refused"]))
    else:
        answer.set_exception(RuntimeError(message["refused"]))
