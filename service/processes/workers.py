"""Worker processes: started, watched, and replaced when they end or hang.

They are spawned, never forked: a fork of a process that holds gRPC's threads
and locks cannot use gRPC. What a worker does is in `worker`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from service.errors import CallError, NotReady, StartError, WorkersLost, log_fault
from service.processes.line import LineClosed
from service.processes.worker_process import WorkerProcess

log = logging.getLogger(__name__)

# To import, load and warm up.
START_TIMEOUT_S = 120.0
# A worker that answered this long was good: the next one starts at once, and otherwise after a pause.
STEADY_S = 5.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 3.0
# Without a good worker for this long, while others ended as often as this, there is no hope.
LOST_S, LOST_ENDS = 15.0, 3
KILL_S = 5.0


class Workers:
    """As many workers as were asked for, whatever happens to one of them.

    Attributes:
        lost: Gets a WorkersLost when no worker stays alive.
    """

    def __init__(self, count: int, settings: Mapping[str, str], on_end: Callable[[WorkerProcess], None]):
        """Prepare.

        Args:
            count: Workers to keep.
            settings: Theirs, as texts.
            on_end: Told of every worker that ended without being told to.
        """
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count = count
        self._settings = settings
        self._on_end = on_end
        self._workers: dict[int, WorkerProcess] = {}
        self._keeping: list[asyncio.Task[None]] = []
        # Held while models change, and while a new worker's are compared to the others'; never while one starts.
        self._changes = asyncio.Lock()
        # What the worker in a place, or the last one before it, said that it has done.
        self._statistics: dict[int, Any] = {}
        self._steady_at = time.monotonic()
        self._ends = 0

    async def start(self) -> str:
        """Start all; returns in words what they answer with.

        Raises:
            StartError: One of them cannot start.
        """
        workers = [await self._spawn(number) for number in range(self._count)]
        await asyncio.gather(*(self._begin(worker) for worker in workers))
        self._steady_at = time.monotonic()
        self._keeping = [asyncio.create_task(self._keep(worker)) for worker in workers]
        for task in self._keeping:
            task.add_done_callback(self._check)
        return workers[0].serves

    def serving(self) -> list[WorkerProcess]:
        """Workers that serve, for all that is known."""
        return [worker for worker in self._workers.values() if worker.is_serving]

    def ready(self) -> list[WorkerProcess]:
        """Workers that answer, and say that they are ready for calls."""
        return [worker for worker in self._workers.values() if worker.is_ready]

    async def ask_all(self, question: str, within_s: float | None = None) -> list[tuple[WorkerProcess, Any]]:
        """Every worker's answer to a question; whoever ends meanwhile, or takes too long, is left out."""
        workers = self.serving()
        asked = (asyncio.wait_for(worker.line.ask(question), within_s) for worker in workers)
        answers = zip(workers, await asyncio.gather(*asked, return_exceptions=True), strict=True)
        # One may have ended since it answered: what it had counted is in the sums already.
        return [(each, answer) for each, answer in answers if each.is_serving and not _is_error(answer)]

    async def change(self, question: str) -> None:
        """Have every worker change its models; one change at a time.

        Raises:
            CallError: Some worker refused.
        """
        async with self._changes:
            workers = self.serving()
            answers = await asyncio.gather(*(worker.line.ask(question) for worker in workers), return_exceptions=True)
        # Whoever asked shall find the server as ready as it is.
        await asyncio.gather(*(worker.beat() for worker in workers), return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, CallError)]
        if refusals:
            # Mostly all say the same.
            raise type(refusals[0])("; ".join(dict.fromkeys(str(refusal) for refusal in refusals)))
        faults = [answer for answer in answers if _is_error(answer)]
        if faults and len(faults) == len(answers):
            raise NotReady("the server is starting again; try again in a moment")

    async def drain(self, timeout_s: float) -> bool:
        """Have all finish what they accepted; returns whether they did before the time was over."""
        for task in self._keeping:
            task.cancel()
        workers = [*self._workers.values()]
        ending = {asyncio.create_task(worker.drain()): worker for worker in workers}
        done, late = await asyncio.wait(ending, timeout=timeout_s)
        failed = [ending[task] for task in done if not task.result()]
        for worker in failed:
            log.error("worker %d (process %d) %s while it drained", worker.number, worker.pid, worker.how_it_ended)
        if late:
            log.error("%d of %d workers did not finish within %g s and are ended", len(late), len(workers), timeout_s)
            await self.end()
        return not late and not failed

    def kill(self) -> None:
        """End all at once."""
        for worker in self._workers.values():
            worker.send(signal.SIGKILL)

    async def end(self) -> None:
        """End all at once, and see them end: asyncio complains of processes that end after its loop."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        self.kill()
        ending = [asyncio.create_task(worker.wait()) for worker in self._workers.values()]
        if ending:
            await asyncio.wait(ending, timeout=KILL_S)

    async def _spawn(self, number: int) -> WorkerProcess:
        worker = await WorkerProcess.spawn(number)
        worker.line.answers |= {
            "join": functools.partial(self._join, worker),
            "change": self.change,
            "states": self._states,
            "statistics": self._all_statistics,
        }
        self._workers[number] = worker
        return worker

    async def _join(self, worker: WorkerProcess, loaded: Mapping[str, str] | None) -> dict[str, Any]:
        """Count a new worker in if it has loaded what the others have; else tell it what that is, None without others.

        While it loaded, the others may have changed their models, or ended and been replaced.
        """
        async with self._changes:
            others = [answer for _, answer in await self.ask_all("loaded")]
            if loaded is not None and (not others or others[0] == loaded):
                worker.join()
                return {"joined": True}
            return {"joined": False, "others": others[0] if others else None}

    async def _states(self, _: Any) -> list[Any]:
        return [answer for _, answer in await self.ask_all("states")]

    async def _all_statistics(self, _: Any) -> list[Any]:
        for worker, answer in await self.ask_all("statistics"):
            self._statistics[worker.number] = answer
        return [*self._statistics.values()]

    async def _begin(self, worker: WorkerProcess) -> None:
        """Have a new worker serve, or raise StartError."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await worker.start(self._settings, self._statistics.get(worker.number, []))
        except TimeoutError:
            worker.send(signal.SIGKILL)
            raise StartError(f"worker {worker.number} was not ready within {START_TIMEOUT_S:g} s") from None
        except LineClosed:
            await worker.wait()
            raise StartError(f"worker {worker.number} {worker.how_it_ended} before it was ready") from None

    async def _keep(self, worker: WorkerProcess) -> None:
        """Watch a worker, and those that take its place, for ever."""
        number, pause_s = worker.number, SHORTEST_PAUSE_S
        while True:
            served_s = await worker.watch()
            log.error("worker %d (process %d) %s; another one takes its place", number, worker.pid, worker.how_it_ended)
            self._on_end(worker)
            self._judge(served_s, worker)
            if served_s < STEADY_S:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                pause_s = SHORTEST_PAUSE_S
            worker = await self._respawn(number)
            try:
                await self._begin(worker)
                log.info("worker %d (process %d) serves in its place", number, worker.pid)
            except StartError as error:
                log.error("worker %d cannot start: %s", number, error)

    async def _respawn(self, number: int) -> WorkerProcess:
        while True:
            try:
                return await self._spawn(number)
            except StartError as error:
                log.error("worker %d cannot start: %s; trying again", number, error)
                await asyncio.sleep(LONGEST_PAUSE_S)

    def _check(self, task: asyncio.Task[None]) -> None:
        """A fault of ours must not leave a worker without anybody who watches it."""
        if not task.cancelled() and (error := task.exception()) and not self.lost.done():
            self.lost.set_exception(WorkersLost(log_fault(error)))

    def _judge(self, served_s: float, worker: WorkerProcess) -> None:
        """Give up when, for a while, no worker was good."""
        now = time.monotonic()
        if served_s >= STEADY_S or any(each.served_s() >= STEADY_S for each in self.serving()):
            self._steady_at, self._ends = now, 0
            return
        self._ends += 1
        if self._ends >= LOST_ENDS and now - self._steady_at > LOST_S and not self.lost.done():
            self.lost.set_exception(
                WorkersLost(
                    f"no worker stays alive: {self._ends} ended within {now - self._steady_at:.0f} s, "
                    f"the last one {worker.how_it_ended}"
                )
            )


def _is_error(answer: Any) -> bool:
    return isinstance(answer, BaseException)
