"""Looks after the runs of a model in progress: nobody waits longer than they want to, and a run that hangs is ended."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Generic

from service.errors import DeadlinePassed
from service.runs.queueing import A, Parts, Queue

log = logging.getLogger(__name__)

# Most runs are over before the first look.
LOOK_EVERY_S = 0.1
# What a run that was told to end may still take.
ENDING_S = 5.0
EXIT_STUCK = 70


def end_process() -> None:
    """End a process that can run its model no more, so that another one takes its place."""
    log.critical("a run of the model can be neither finished nor ended; the process ends with %d", EXIT_STUCK)
    os._exit(EXIT_STUCK)


class Watchdog(Generic[A]):
    """Of one queue and its runs."""

    def __init__(
        self,
        queue: Queue[A],
        stop_runs: Callable[[], None],
        *,
        max_run_s: float,
        give_up: Callable[[], None] = end_process,
    ):
        """Prepare.

        Args:
            queue: Whoever waits in it is told when their deadline has passed, also while a run goes on and on.
            stop_runs: Has the runs in progress end with an error; does not wait for that.
            max_run_s: What a run may take.
            give_up: Called when a run does not end.
        """
        self._queue = queue
        self._stop_runs = stop_runs
        self._max_run_s = max_run_s
        self._give_up = give_up

    def begin(self, batch: Parts[A]) -> Run[A]:
        """Look after a run of these groups, until `end` of what is returned is called."""
        return Run(self, batch)

    def look(self, run: Run[A]) -> None:
        """Do what is due."""
        now = time.monotonic()
        self._queue.drop_late(now)
        for group, _, _ in run.batch:
            if group.is_late(now):
                group.failed(DeadlinePassed("the deadline passed while the model ran"))
        seconds = now - run.began
        if seconds > self._max_run_s and not run.is_stopped:
            run.is_stopped = True
            log.error("a run of the model takes more than %g s (--max-run-s); it is ended", self._max_run_s)
            self._stop_runs()
        if seconds > self._max_run_s + ENDING_S:
            self._give_up()


class Run(Generic[A]):
    """A run in progress."""

    def __init__(self, watchdog: Watchdog[A], batch: Parts[A]):
        self.batch = batch
        self.began = time.monotonic()
        self.is_stopped = False
        self._watchdog = watchdog
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_later(LOOK_EVERY_S, self._look)

    def end(self) -> None:
        """It is over."""
        self._next.cancel()

    def _look(self) -> None:
        self._next = self._loop.call_later(LOOK_EVERY_S, self._look)
        self._watchdog.look(self)
