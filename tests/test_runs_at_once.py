"""The batching loop where more than one run may be in progress, as on a GPU."""

from __future__ import annotations

import asyncio
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from service.runs.queueing import Images
from tests.test_batching import Numbers, Record, make, numbered, tell_number


async def test_where_two_runs_fit_the_second_does_not_wait_for_the_first() -> None:
    """As on a GPU: the later part of a group is answered before the earlier one, and they come out in order."""
    earlier_may_end, later_ended = threading.Event(), threading.Event()

    def earlier_part_ends_last(images: Images) -> Numbers:
        if images[0, 0, 0, 0] == 10:
            assert earlier_may_end.wait(10)
        else:
            later_ended.set()
        return tell_number(images)

    record = Record()
    async with make(earlier_part_ends_last, record, max_run_images=4, runs_at_once=2) as batcher:
        large = asyncio.create_task(batcher.submit(numbered(*range(10, 18))))
        assert await asyncio.to_thread(later_ended.wait, 10)
        single = await batcher.submit(numbered(99))
        assert not large.done()
        earlier_may_end.set()
        outcome = await large
    assert single.answers.numbers == [99]
    assert outcome.answers.numbers == list(range(10, 18))
    assert sorted(record.runs) == [1, 4, 4] and len(record.waits) == 2


@settings(max_examples=50, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=9), min_size=1, max_size=20),
    max_run_images=st.integers(1, 12),
    runs_at_once=st.integers(1, 3),
)
def test_every_caller_gets_its_own_answer(groups: list[list[int]], max_run_images: int, runs_at_once: int) -> None:
    async def scenario() -> None:
        record = Record()
        async with make(tell_number, record, max_run_images, 1000, runs_at_once) as batcher:
            answers = await asyncio.gather(*(batcher.submit(numbered(*group)) for group in groups))
        assert [answer.answers.numbers for answer in answers] == groups
        assert sum(record.runs) == sum(map(len, groups))
        assert max(record.runs) <= max_run_images
        assert record.lengths[-1] == 0

    asyncio.run(scenario())
