"""Many callers, one model run.

A loop waits until the model is free, takes the images that are there and
runs them together: a batch grows by itself while the model is busy, and
a lone caller waits for no timer. Knows numpy and a callable; no ONNX, no gRPC,
and of an answer only that it can be cut and put together.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol

import numpy as np

from service.errors import NotReady, QueueFull
from service.runs.arrivals import let_arrive
from service.runs.queueing import A, Account, Group, Images, Outcome, Parts, Queue
from service.runs.threads import Threads
from service.runs.turns import CALLER
from service.runs.watchdog import Watchdog

Run = Callable[[Images], A]


class Observer(Protocol):
    """Whoever wants to know what the batcher does."""

    def queue_changed(self, images: int) -> None:
        """This many more images wait for the model, or fewer."""

    def model_ran(self, images: int, seconds: float, waits: Sequence[float]) -> object:
        """The model ran once, on groups of images that had waited this long.

        Returns: What tells the run from others, for the outcomes of its groups.
        """


class Batcher(Generic[A]):
    """Collects images of many callers into runs of one model.

    Times are `time.monotonic()` seconds. Use as an async context manager;
    leaving it answers everything that was accepted, then stops.
    """

    def __init__(
        self,
        run: Run[A],
        *,
        max_run_images: int,
        max_queue_images: int,
        observer: Observer,
        runs_at_once: int = 1,
        max_run_s: float = math.inf,
        stop_runs: Callable[[], None] = lambda: None,
    ):
        """Prepare; nothing runs until `start`.

        Args:
            run: Takes uint8 (N, 1, 28, 28); returns N answers. Called in
                threads of the batcher's own.
            max_run_images: Most images in one run; larger groups are run in parts.
            max_queue_images: Images that may wait; `submit` refuses more, but for an eighth that is kept for
                callers of whom nothing waits and whose images fit into one run.
            observer: Told of the queue's length and of every run.
            runs_at_once: Runs that may be in progress at the same time.
            max_run_s: What a run may take.
            stop_runs: Has the runs in progress, which take longer, end with an error.
        """
        self._max_run_images = max_run_images
        self._max_queue_images = max_queue_images
        self._observer = observer
        self._runs_at_once = runs_at_once
        self._queue: Queue[A] = Queue(observer.queue_changed)
        self._arrived = asyncio.Event()
        self._closing = False
        self._loops: list[asyncio.Task[None]] = []
        self._watchdog = Watchdog(self._queue, stop_runs, max_run_s=max_run_s)
        self._threads = Threads(run, count=runs_at_once, name="model")

    async def __aenter__(self) -> Batcher[A]:
        self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to run what is submitted."""
        self._loops = [asyncio.create_task(self._work(), name="batching loop") for _ in range(self._runs_at_once)]

    async def close(self) -> None:
        """Refuse new groups, answer the accepted ones, stop."""
        self._closing = True
        self._arrived.set()
        try:
            await asyncio.gather(*self._loops)
        finally:
            self._threads.close()

    @property
    def waiting_groups(self) -> int:
        """Groups that have images in the queue."""
        return len(self._queue)

    async def submit(
        self, images: Images, deadline: float | None = None, priority: int = 0, account: Account | None = None
    ) -> Outcome[A]:
        """Have images classified together with whatever else is waiting, in turn with those of other `CALLER`s.

        Args:
            images: uint8 of shape (N, 1, 28, 28), N at least 1.
            deadline: `time.monotonic()` after which the answer is useless.
            priority: 1 to `PRIORITY_LEVELS`; anything else is the ordinary one. What waits with a lower
                number runs first.
            account: Told, besides the observer, of the runs that hold images submitted with it.

        Raises:
            QueueFull: There is no room for N more images; nothing was queued.
            DeadlinePassed: The deadline passed before the model was free.
            NotReady: The batcher is closing.
        """
        if self._closing:
            raise NotReady("the server is shutting down; another one may answer")
        caller, is_little = CALLER.get(), len(images) <= self._max_run_images
        limit = self._queue.limit(self._max_queue_images, caller, priority, is_little=is_little)
        if self._queue.images + len(images) > limit:
            raise QueueFull(
                f"{self._queue.images} images are waiting and {len(images)} more would exceed the limit of "
                f"{self._max_queue_images} (--max-queue-images); try again a little later"
            )
        future: asyncio.Future[Outcome[A]] = asyncio.get_running_loop().create_future()
        group = Group(images, deadline, time.monotonic(), priority, account, caller, future)
        self._queue.add(group)
        self._arrived.set()
        try:
            return await future
        except asyncio.CancelledError:
            self._queue.forget(group)
            raise

    async def _work(self) -> None:
        """The loop, once for each run that may be in progress: decide, run, account."""
        try:
            while True:
                await self._arrived.wait()
                await let_arrive(lambda: self._queue.images, self._max_run_images)
                batch = self._queue.take(self._max_run_images, time.monotonic())
                if batch:
                    await self._run_batch(batch)
                elif self._closing:
                    return
                else:
                    self._arrived.clear()
        finally:
            # Empty unless the loop itself failed: then nobody must wait for it.
            self._closing = True
            self._queue.fail(NotReady("the server cannot run its model any more; another one may answer"))

    async def _run_batch(self, batch: Parts[A]) -> None:
        """Run the model once and hand every group its part of the answer."""
        images = batch[0][2] if len(batch) == 1 else np.concatenate([part for _, _, part in batch])
        watched = self._watchdog.begin(batch)
        try:
            answers = await self._threads.do(images)
            if len(answers) != len(images):
                raise ValueError(f"the model answered {len(answers)} of {len(images)} images")
            seconds = time.monotonic() - watched.began
            waits = [group.queue_seconds for group, start, _ in batch if not start]
            run = self._observer.model_ran(len(images), seconds, waits)
            for account, held in _by_account(batch).items():
                account.ran(held, seconds)
        # A failed run fails its own groups, whatever the reason, and no others.
        except BaseException as error:
            fault = error if isinstance(error, Exception) else RuntimeError("the run of the model was broken off")
            for group, _, _ in batch:
                self._queue.forget(group)
                group.failed(fault)
            if not isinstance(error, Exception):
                raise
            return
        finally:
            watched.end()
        row = 0
        for group, start, part in batch:
            group.answer(start, answers[row : row + len(part)], seconds, run)
            row += len(part)


def _by_account(batch: Parts[A]) -> dict[Account, int]:
    """How many images of a run belong to each account."""
    images: dict[Account, int] = {}
    for group, _, part in batch:
        if group.account is not None:
            images[group.account] = images.get(group.account, 0) + len(part)
    return images
