"""A worker as its supervisor sees it: a process, and a line to it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

from service.errors import CallError, StartError
from service.processes.line import Line, LineClosed

# A worker that misses two beats in a row hangs: it is ended 4.5 s after its last one at the latest. One alone proves
# nothing: the supervisor, too, may have been stopped for a while.
BEAT_S = 0.5
BEAT_TIMEOUT_S = 2.0
BEATS_MISSED = 2


class WorkerProcess:
    """A worker process.

    Attributes:
        number: Its place; whichever takes its place has the same.
        pid: Its process id.
        line: To ask it, and to be asked.
        serves: In words what it answers with, once it serves.
        is_serving: Whether it has started and not ended.
        is_ready: Whether it answers, and says that calls are welcome.
        hung: Whether it was ended because it did not answer.
        how_it_ended: In words, once it has.
    """

    def __init__(self, number: int, process: asyncio.subprocess.Process, line: Line):
        """Take charge of a process; see `spawn`."""
        self.number = number
        self.pid = process.pid
        self.line = line
        self.serves = ""
        self.is_serving = self.is_ready = self.hung = False
        self.how_it_ended = ""
        self._process = process
        self._began = 0.0

    @classmethod
    async def spawn(cls, number: int) -> WorkerProcess:
        """Start a process, which then waits to be told to start.

        Raises:
            StartError: The system has no room for it.
        """
        ours, its = socket.socketpair()
        with its:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "service.worker", str(number), str(its.fileno())),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(its.fileno(),),
                    # A terminal's Ctrl-C is for the supervisor alone, who tells the workers.
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise StartError(f"no process can be started for it: {error.strerror}") from None
        line = Line()
        await line.open(ours)
        return cls(number, process, line)

    async def start(self, settings: Mapping[str, str], others: Mapping[str, str] | None) -> None:
        """Have it serve.

        Args:
            settings: As texts.
            others: The sha256 by version of what the others have loaded, and it shall load; None if there are none.

        Raises:
            StartError: It cannot.
            LineClosed: It ended.
        """
        answer = await self.line.ask("start", {"settings": settings, "others": others})
        if "failed" in answer:
            self.line.close()
            error = StartError(answer["failed"])
            error.exit_code = answer["exit_code"]
            raise error
        self.serves = answer["serves"]
        self._began = time.monotonic()
        self.is_serving = self.is_ready = True

    def served_s(self) -> float:
        """How long it has been serving; 0 if it never did, or does no more."""
        return time.monotonic() - self._began if self.is_serving else 0.0

    async def watch(self) -> float:
        """Wait for its end, and end it if it hangs; returns how long it served."""
        beating = asyncio.create_task(self._beat()) if self.is_serving else None
        try:
            await self._process.wait()
        finally:
            if beating:
                beating.cancel()
        served_s = self.served_s()
        await self.wait()
        return served_s

    async def drain(self) -> bool:
        """Have it finish what it accepted, and end; returns whether it did."""
        if not self.is_serving:
            # It has accepted nothing, or has ended.
            self.send(signal.SIGKILL)
            await self.wait()
            return True
        with contextlib.suppress(LineClosed):
            await self.line.ask("drain")
        return await self.wait() == 0

    async def wait(self) -> int:
        """Wait for its end; returns its exit code, or the number of the signal that ended it as a negative one."""
        code = await self._process.wait()
        self.is_serving = self.is_ready = False
        self.line.close()
        by_signal = f"was ended by {signal.Signals(-code).name}" if code < 0 else ""
        self.how_it_ended = "hung and was ended" if self.hung else by_signal or f"ended with code {code}"
        return code

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    async def _beat(self) -> None:
        missed = 0
        while missed < BEATS_MISSED:
            try:
                async with asyncio.timeout(BEAT_TIMEOUT_S):
                    self.is_ready = await self.line.ask("beat")
                missed = 0
                await asyncio.sleep(BEAT_S)
            except LineClosed:
                return
            # An answer that is none is as bad as no answer.
            except (TimeoutError, CallError, RuntimeError):
                self.is_ready = False
                missed += 1
        self.hung = True
        self.send(signal.SIGKILL)
