"""Many callers, one model run.

A loop waits until the model is free, takes the images that are there and
runs them together: a batch grows by itself while the model is busy, and
a lone caller waits for no timer. Large groups are run in parts, several of
them in one turn of the model's thread as long as nobody else comes.
Knows numpy and a callable; no ONNX, no gRPC, and of an answer only that it can
be cut and put together.
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
from service.runs.watchdog import Run as Watched
from service.runs.watchdog import Watchdog

Run = Callable[[Images], A]
# The answers to the images of a run, or what it raised, and the seconds it took.
Ran = tuple[A | Exception, float]

# Most runs in a turn. To hand a run over costs the event loop as much as three images cost the model.
TURN_RUNS = 8
# Of the thread that runs parts of large groups, which computes for milliseconds on end: Linux lets it, whoever wakes up
# meanwhile, unless it is a little nice. Calls pass through three threads before they wait here.
NICENESS = 4


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
        self._run = run
        # With several runs in progress, what one gives back would lie between parts that others have taken.
        self._turn_runs = TURN_RUNS if runs_at_once == 1 else 1
        # Set while there is a reason to end a turn after the run in progress.
        self._is_wanted = False
        self._threads = Threads(self._run_turn, count=runs_at_once, name="model")
        self._nice_threads = Threads(self._run_turn, count=runs_at_once, name="parts", niceness=NICENESS)

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
            self._nice_threads.close()

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
        self._is_wanted = True
        try:
            return await future
        except asyncio.CancelledError:
            self._queue.forget(group)
            self._is_wanted = True
            raise

    async def _work(self) -> None:
        """The loop, once for each run that may be in progress: decide, run, account."""
        try:
            is_crowd = False
            while True:
                if not self._queue.images:
                    if self._closing:
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                if is_crowd:
                    await let_arrive(lambda: self._queue.images, self._max_run_images)
                if turn := self._next_turn():
                    await self._take_turn(turn)
                    # Whoever is alone waits for nobody.
                    is_crowd = len(turn[-1]) > 1 or self._queue.images > 0
        finally:
            # Empty unless the loop itself failed: then nobody must wait for it.
            self._closing = True
            self._queue.fail(NotReady("the server cannot run its model any more; another one may answer"))

    def _next_turn(self) -> list[Parts[A]]:
        """The next run, or several where they are parts of large groups, up to the last part of one."""
        turn: list[Parts[A]] = []
        has_more = True
        while has_more and (batch := self._queue.take(self._max_run_images, time.monotonic())):
            turn.append(batch)
            is_part = batch[0][0].waiting > 0
            has_more = is_part and len(turn) < self._turn_runs and self._queue.has_part_next(self._max_run_images)
        return turn

    async def _take_turn(self, turn: list[Parts[A]]) -> None:
        """Run the model, once for each batch as far as the turn lasts, and hand every group its part of the answers."""
        self._is_wanted = False
        watched = self._watchdog.begin([part for batch in turn for part in batch])
        threads = self._nice_threads if len(turn[0][0][0].images) > self._max_run_images else self._threads
        try:
            ran = await threads.do((turn, watched))
        except BaseException:
            for batch in turn:
                self._fail(batch, RuntimeError("the run of the model was broken off"))
            raise
        finally:
            watched.end()
        for batch, (outcome, seconds) in zip(turn, ran, strict=False):
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                self._answer(batch, outcome, seconds)
            # A failed run fails its own groups, whatever the reason, and no others.
            except Exception as error:
                self._fail(batch, error)
        for batch in reversed(turn[len(ran) :]):
            self._queue.give_back(batch)
        for batch in turn[: len(ran)]:
            self._queue.let_others_go_first(batch)

    def _run_turn(self, given: tuple[list[Parts[A]], Watched[A]]) -> list[Ran[A]]:
        """In a thread of the model: the first batch of a turn, and the others until there is a reason to end it."""
        turn, watched = given
        ran: list[Ran[A]] = []
        for batch in turn:
            began = time.monotonic()
            if ran and (self._is_wanted or any(group.is_late(began) for group, _, _ in batch)):
                break
            images = batch[0][2] if len(batch) == 1 else np.concatenate([part for _, _, part in batch])
            watched.began = began
            outcome: A | Exception
            try:
                outcome = answers = self._run(images)
                if len(answers) != len(images):
                    raise ValueError(f"the model answered {len(answers)} of {len(images)} images")
            except Exception as error:
                outcome, self._is_wanted = error, True
            ran.append((outcome, time.monotonic() - began))
        return ran

    def _answer(self, batch: Parts[A], answers: A, seconds: float) -> None:
        """Account for a run, and tell its groups."""
        waits = [group.queue_seconds for group, start, _ in batch if not start]
        run = self._observer.model_ran(len(answers), seconds, waits)
        for account, held in _by_account(batch).items():
            account.ran(held, seconds)
        row = 0
        for group, start, part in batch:
            group.answer(start, answers if len(batch) == 1 else answers[row : row + len(part)], seconds, run)
            row += len(part)

    def _fail(self, batch: Parts[A], error: Exception) -> None:
        for group, _, _ in batch:
            self._queue.forget(group)
            group.failed(error)


def _by_account(batch: Parts[A]) -> dict[Account, int]:
    """How many images of a run belong to each account."""
    images: dict[Account, int] = {}
    for group, _, part in batch:
        if group.account is not None:
            images[group.account] = images.get(group.account, 0) + len(part)
    return images
