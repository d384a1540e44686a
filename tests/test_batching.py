"""The batching loop, with a model that is a few lines of numpy."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from service.errors import DeadlinePassed, NotReady, QueueFull
from service.runs.batching import Batcher
from service.runs.queueing import Images


class Record:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.runs: list[int] = []
        self.waits: list[float] = []

    def queue_changed(self, images: int) -> None:
        self.lengths.append((self.lengths or [0])[-1] + images)

    def model_ran(self, images: int, seconds: float, waits: Sequence[float]) -> None:
        self.runs.append(images)
        self.waits += waits


def numbered(*numbers: int) -> Images:
    """Images whose every pixel is their number."""
    return np.array(numbers, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 1, 28, 28), np.uint8)


class Numbers:
    """Answers that are numbers."""

    def __init__(self, numbers: list[int]):
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice) -> Numbers:
        return Numbers(self.numbers[part])

    def followed_by(self, others: Sequence[Numbers]) -> Numbers:
        return Numbers(self.numbers + [number for other in others for number in other.numbers])


Run = Callable[[Images], Numbers]


def tell_number(images: Images) -> Numbers:
    """A model that answers each image with its number."""
    return Numbers(images[:, 0, 0, 0].tolist())


class Gate:
    """A model that waits until it is let through, and keeps what it was given."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.seen: list[list[int]] = []

    def __call__(self, images: Images) -> Numbers:
        self.entered.set()
        assert self.opened.wait(10)
        self.seen.append(images[:, 0, 0, 0].tolist())
        return tell_number(images)

    async def wait_entered(self) -> None:
        await asyncio.to_thread(self.entered.wait, 10)


def make(
    run: Run, record: Record | None = None, max_run_images: int = 8, max_queue_images: int = 64, runs_at_once: int = 1
) -> Batcher[Numbers]:
    return Batcher(
        run,
        max_run_images=max_run_images,
        max_queue_images=max_queue_images,
        observer=record or Record(),
        runs_at_once=runs_at_once,
    )


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_lone_caller_is_answered_alone() -> None:
    record = Record()
    async with make(tell_number, record) as batcher:
        outcome = await batcher.submit(numbered(7))
    assert outcome.answers.numbers == [7]
    assert record.runs == [1]
    assert outcome.queue_seconds >= 0 and outcome.model_seconds > 0


async def test_what_waits_while_the_model_is_busy_runs_together() -> None:
    gate, record = Gate(), Record()
    async with make(gate, record) as batcher:
        first = asyncio.create_task(batcher.submit(numbered(1)))
        await gate.wait_entered()
        others = [asyncio.create_task(batcher.submit(numbered(n))) for n in range(2, 8)]
        await settle()
        gate.opened.set()
        answers = await asyncio.gather(first, *others)
    assert [answer.answers.numbers for answer in answers] == [[n] for n in range(1, 8)]
    assert gate.seen == [[1], [2, 3, 4, 5, 6, 7]]
    assert record.runs == [1, 6]
    assert len(record.waits) == 7


async def test_a_large_group_is_run_in_parts_and_lets_single_images_in_between() -> None:
    gate = Gate()
    async with make(gate, max_run_images=4) as batcher:
        blocker = asyncio.create_task(batcher.submit(numbered(0)))
        await gate.wait_entered()
        large = asyncio.create_task(batcher.submit(numbered(*range(10, 20))))
        single = asyncio.create_task(batcher.submit(numbered(99)))
        await settle()
        gate.opened.set()
        answers = await asyncio.gather(blocker, large, single)
    assert answers[1].answers.numbers == list(range(10, 20))
    assert gate.seen[1:] == [[10, 11, 12, 13], [99], [14, 15, 16, 17], [18, 19]]


async def test_a_full_queue_refuses_at_once_and_loses_nothing() -> None:
    gate = Gate()
    async with make(gate, max_queue_images=4) as batcher:
        running = asyncio.create_task(batcher.submit(numbered(1)))
        await gate.wait_entered()
        waiting = asyncio.create_task(batcher.submit(numbered(2, 3, 4)))
        await settle()
        with pytest.raises(QueueFull, match=r"3 images are waiting and 2 more would exceed the limit of 4"):
            await batcher.submit(numbered(5, 6))
        fits = asyncio.create_task(batcher.submit(numbered(7)))
        await settle()
        gate.opened.set()
        answers = await asyncio.gather(running, waiting, fits)
    assert [answer.answers.numbers for answer in answers] == [[1], [2, 3, 4], [7]]


async def test_what_expired_or_was_cancelled_while_waiting_is_never_run() -> None:
    gate, record = Gate(), Record()
    async with make(gate, record) as batcher:
        running = asyncio.create_task(batcher.submit(numbered(1)))
        await gate.wait_entered()
        expired = asyncio.create_task(batcher.submit(numbered(2), deadline=time.monotonic()))
        cancelled = asyncio.create_task(batcher.submit(numbered(3)))
        alive = asyncio.create_task(batcher.submit(numbered(4), deadline=time.monotonic() + 60))
        await settle()
        cancelled.cancel()
        await settle()
        gate.opened.set()
        await asyncio.gather(running, alive)
        with pytest.raises(DeadlinePassed, match=r"the deadline passed after 0\.\d+ s in the queue"):
            await expired
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert gate.seen == [[1], [4]]
    assert record.lengths[-1] == 0


async def test_a_group_cancelled_between_its_parts_leaves_the_queue() -> None:
    gate, record = Gate(), Record()
    async with make(gate, record, max_run_images=2) as batcher:
        large = asyncio.create_task(batcher.submit(numbered(1, 2, 3, 4, 5)))
        await gate.wait_entered()
        large.cancel()
        await settle()
        gate.opened.set()
        assert (await batcher.submit(numbered(9))).answers.numbers == [9]
    assert gate.seen == [[1, 2], [9]]
    assert record.lengths[-1] == 0


def fail(images: Images) -> Numbers:
    if 13 in images[:, 0, 0, 0]:
        raise RuntimeError("the model tripped")
    return tell_number(images)


def lose_an_image(images: Images) -> Numbers:
    answers = tell_number(images)
    return answers[:-1] if 13 in answers.numbers else answers


@pytest.mark.parametrize(("run", "text"), [(fail, "the model tripped"), (lose_an_image, "answered 1 of 2 images")])
async def test_a_failed_run_fails_its_own_groups_only(run: Run, text: str) -> None:
    record = Record()
    async with make(run, record, max_run_images=2) as batcher:
        bad = asyncio.create_task(batcher.submit(numbered(12, 13, 14)))
        good = asyncio.create_task(batcher.submit(numbered(1, 2)))
        with pytest.raises((RuntimeError, ValueError), match=text):
            await bad
        assert (await good).answers.numbers == [1, 2]
        assert (await batcher.submit(numbered(3))).answers.numbers == [3]
    assert record.lengths[-1] == 0


async def test_closing_answers_what_was_accepted_and_refuses_the_rest() -> None:
    gate = Gate()
    batcher = make(gate, max_run_images=1)
    batcher.start()
    accepted = [asyncio.create_task(batcher.submit(numbered(n))) for n in range(3)]
    await gate.wait_entered()
    closing = asyncio.create_task(batcher.close())
    await settle()
    with pytest.raises(NotReady, match="shutting down"):
        await batcher.submit(numbered(9))
    gate.opened.set()
    answers = await asyncio.gather(*accepted)
    await closing
    assert [answer.answers.numbers for answer in answers] == [[0], [1], [2]]


class Stop(BaseException):
    """What ends a thread rather than a run, as SystemExit does."""


async def test_when_the_loop_itself_ends_nobody_waits_for_it() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def run(images: Images) -> Numbers:
        entered.set()
        assert go_on.wait(10)
        raise Stop

    batcher = make(run, max_run_images=1)
    batcher.start()
    calls = [asyncio.create_task(batcher.submit(numbered(n))) for n in range(2)]
    await asyncio.to_thread(entered.wait, 10)
    go_on.set()
    with pytest.raises(RuntimeError, match="was broken off"):
        await calls[0]
    with pytest.raises(NotReady, match="cannot run its model any more"):
        await calls[1]
    with pytest.raises(NotReady):
        await batcher.submit(numbered(3))
    with pytest.raises(Stop):
        await batcher.close()


async def test_an_observer_that_fails_fails_its_batch_only() -> None:
    record = Record()
    real = record.model_ran
    failures = iter([ValueError("no such series")])

    def model_ran(images: int, seconds: float, waits: Sequence[float]) -> None:
        for error in failures:
            raise error
        real(images, seconds, waits)

    record.model_ran = model_ran  # type: ignore[method-assign]
    async with make(tell_number, record) as batcher:
        with pytest.raises(ValueError, match="no such series"):
            await batcher.submit(numbered(1))
        assert (await batcher.submit(numbered(2))).answers.numbers == [2]


async def test_what_waits_runs_by_priority_and_then_in_the_order_of_arrival() -> None:
    gate = Gate()
    async with make(gate, max_run_images=2) as batcher:
        first = asyncio.create_task(batcher.submit(numbered(0)))
        await gate.wait_entered()
        waiting = [
            asyncio.create_task(batcher.submit(numbered(n), priority=priority))
            for n, priority in enumerate((3, 0, 2, 99, 1, 3), 1)
        ]
        await settle()
        gate.opened.set()
        await asyncio.gather(first, *waiting)
    assert gate.seen == [[0], [5, 2], [3, 4], [1, 6]]
