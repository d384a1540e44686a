"""A worker as its supervisor sees it: a process, and a line to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from service.errors import CallError, StartError
from service.processes.line import Line, LineClosed
from service.processes.patience import LOOK_S, Patience

# Between an answer and the next question whether it is ready.
BEAT_S = 0.25
# One that has not answered for so long is not ready, whether it hangs or not.
READY_LOOKS = 8


class WorkerProcess:
    """A worker process.

    Attributes:
        number: Its place; whichever takes its place has the same.
        pid: Its process id.
        line: To ask it, and to be asked.
        serves: In words what it answers with, once it serves.
        is_serving: Whether it has loaded what it answers with, may get calls, and has not ended.
        is_ready: Whether it answers, and says that calls are welcome.
        hung: Whether it was ended because it did not answer.
        how_it_ended: In words, once it has.
    """

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        line: Line,
        folder: tempfile.TemporaryDirectory[str] | None,
    ):
        """Take charge of a process, and of the folder for its temporary files; see `spawn`."""
        self.number = number
        self.pid = process.pid
        self.line = line
        self.serves = ""
        self.is_serving = self.is_ready = self.hung = False
        self.how_it_ended = ""
        self._process = process
        self._folder = folder
        self._began = 0.0
        self._is_new = True
        self._beating = asyncio.create_task(self._beat())

    @classmethod
    async def spawn(cls, number: int) -> WorkerProcess:
        """Start a process, which then waits to be told to start.

        Raises:
            StartError: The system has no room for it.
        """
        ours, its = socket.socketpair()
        folder = _own_folder()
        with its:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "service.worker", str(number), str(its.fileno())),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(its.fileno(),),
                    env=os.environ | ({"TMPDIR": folder.name} if folder else {}),
                    # A terminal's Ctrl-C is for the supervisor alone, who tells the workers.
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                if folder:
                    folder.cleanup()
                raise StartError(f"no process can be started for it: {error.strerror}") from None
        line = Line()
        await line.open(ours)
        return cls(number, process, line, folder)

    async def start(self, settings: Mapping[str, str], predecessor: Any) -> None:
        """Have it serve; when it has loaded its models it will ask to `join`.

        Args:
            settings: As texts.
            predecessor: The statistics of whoever had its place, as that one told them.

        Raises:
            StartError: It cannot.
            LineClosed: It ended.
        """
        answer = await self.line.ask("start", {"settings": settings, "predecessor": predecessor})
        if "failed" in answer:
            self.line.close()
            error = StartError(answer["failed"])
            error.exit_code = answer["exit_code"]
            raise error
        self.serves = answer["serves"]
        self.is_ready = self.is_serving

    def join(self) -> None:
        """Count it among those that serve."""
        self._began = time.monotonic()
        self.is_serving = True

    def served_s(self) -> float:
        """How long it has been serving; 0 if it never did, or does no more."""
        return time.monotonic() - self._began if self.is_serving else 0.0

    async def watch(self) -> float:
        """Wait for its end; returns how long it served."""
        await self._process.wait()
        served_s = self.served_s()
        await self.wait()
        return served_s

    async def drain(self) -> bool:
        """Have it finish what it accepted, and end; returns whether it did."""
        # At its end it answers nothing any more; whoever drains watches the time.
        self._beating.cancel()
        if not (self.is_serving and self.serves):
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
        self._beating.cancel()
        self.is_serving = self.is_ready = False
        self.line.close()
        if self._folder:
            self._folder.cleanup()
        by_signal = f"was ended by {signal.Signals(-code).name}" if code < 0 else ""
        self.how_it_ended = "hung and was ended" if self.hung else by_signal or f"ended with code {code}"
        return code

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    async def beat(self) -> None:
        """Ask it whether it is ready.

        Raises:
            LineClosed: It ended.
        """
        try:
            is_ready = await self.line.ask("beat")
        # An answer that is none.
        except (CallError, RuntimeError):
            is_ready = False
        # It may have ended since.
        self.is_ready = self.is_serving and is_ready
        self._is_new = False

    async def _beat(self) -> None:
        """Ask it again and again, and end it when it hangs."""
        with contextlib.suppress(LineClosed):
            while True:
                if not await self._answers():
                    self.hung = True
                    self.send(signal.SIGKILL)
                    break
                await asyncio.sleep(BEAT_S)
        self.is_ready = False

    async def _answers(self) -> bool:
        beat = asyncio.create_task(self.beat())
        patience = Patience(self.pid, is_new=self._is_new)
        try:
            while not (await asyncio.wait([beat], timeout=LOOK_S))[0]:
                if patience.is_over():
                    return False
                if patience.looks >= READY_LOOKS:
                    self.is_ready = False
            await beat
            return True
        finally:
            beat.cancel()


def _own_folder() -> tempfile.TemporaryDirectory[str] | None:
    """A folder for a worker's temporary files, which the native transport leaves behind when it is killed.

    None where none can be made: only that transport needs one, and says so.
    """
    with contextlib.suppress(OSError):
        return tempfile.TemporaryDirectory(prefix="digitserve-", ignore_cleanup_errors=True)
    return None
