"""Several parts of large groups are run in one turn of the model's thread, and nobody notices but the clock."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from service.runs.queueing import Images
from tests.test_batching import Gate, Numbers, Record, make, numbered, settle, tell_number


async def test_whoever_comes_while_a_part_runs_is_next() -> None:
    gate, record = Gate(), Record()
    async with make(gate, record, max_run_images=4) as batcher:
        large = asyncio.create_task(batcher.submit(numbered(*range(10, 20))))
        await gate.wait_entered()
        single = asyncio.create_task(batcher.submit(numbered(99)))
        await settle()
        gate.opened.set()
        answers = await asyncio.gather(large, single)
    assert gate.seen == [[10, 11, 12, 13], [99], [14, 15, 16, 17], [18, 19]]
    assert [answer.answers.numbers for answer in answers] == [list(range(10, 20)), [99]]
    assert record.runs == [4, 1, 4, 2]
    assert len(record.waits) == 2
    assert record.lengths[-1] == 0


async def test_large_groups_take_turns_part_by_part() -> None:
    gate, record = Gate(), Record()
    async with make(gate, record, max_run_images=2) as batcher:
        blocker = asyncio.create_task(batcher.submit(numbered(0)))
        await gate.wait_entered()
        groups = [asyncio.create_task(batcher.submit(numbered(*range(n, n + 5)))) for n in (10, 20)]
        await settle()
        gate.opened.set()
        _, *answers = await asyncio.gather(blocker, *groups)
    assert gate.seen == [[0], [10, 11], [20, 21], [12, 13], [22, 23], [14, 24]]
    assert [answer.answers.numbers for answer in answers] == [list(range(10, 15)), list(range(20, 25))]
    assert record.runs == [1, 2, 2, 2, 2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of threads")
async def test_parts_of_large_groups_give_way_to_the_threads_that_bring_calls() -> None:
    niceness: dict[int, int] = {}

    def run(images: Images) -> Numbers:
        niceness[len(images)] = os.getpriority(os.PRIO_PROCESS, 0) - os.getpriority(os.PRIO_PROCESS, os.getpid())
        return tell_number(images)

    async with make(run, max_run_images=4) as batcher:
        await batcher.submit(numbered(1, 2, 3))
        await batcher.submit(numbered(*range(8)))
        await batcher.submit(numbered(1, 2))
    assert niceness == {3: 0, 4: 4, 2: 0}
