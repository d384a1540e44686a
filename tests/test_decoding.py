"""Files of many callers, read in turn by threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from service.errors import InvalidImage, QueueFull
from service.pictures import decoding
from service.pictures.decoding import Decoder
from service.pictures.images import Pixels
from service.runs.turns import CALLER


class Numbers:
    """A reader whose files are numbers, read once they are let through; it keeps the order."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.seen: list[int] = []

    def read(self, file: bytes) -> Pixels:
        self.entered.set()
        assert self.opened.wait(10)
        self.seen.append(file[0])
        if file[0] == 13:
            raise InvalidImage("unlucky")
        if file[0] == 99:
            raise RuntimeError("the reader tripped")
        return np.full((28, 28), file[0], np.uint8)


class Watch:
    def __init__(self) -> None:
        self.decoded = 0

    def image_decoded(self, seconds: float) -> None:
        self.decoded += 1


def numbered(*numbers: int) -> list[bytes]:
    return [bytes([number]) for number in numbers]


def values(read: list[Pixels | InvalidImage]) -> list[int | str]:
    return [str(each) if isinstance(each, InvalidImage) else int(each[0, 0]) for each in read]


@pytest.fixture
def reader() -> Numbers:
    return Numbers()


@pytest.fixture
def decoder(reader: Numbers) -> Iterator[Decoder]:
    decoder = Decoder(reader, threads=1, max_images=100, observer=Watch())  # type: ignore[arg-type]
    yield decoder
    reader.opened.set()
    decoder.close()


async def blocked(decoder: Decoder, reader: Numbers, *numbers: int) -> asyncio.Task[list[Pixels | InvalidImage]]:
    """The one thread reads the first of these and waits."""
    task = asyncio.create_task(decoder.read(numbered(*numbers)))
    await asyncio.to_thread(reader.entered.wait, 10)
    return task


async def test_each_file_gets_its_own_answer(decoder: Decoder, reader: Numbers) -> None:
    reader.opened.set()
    reads = await asyncio.gather(*(decoder.read(numbered(n, 13, n + 1)) for n in range(20, 60, 2)))
    assert [values(read) for read in reads] == [[n, "unlucky", n + 1] for n in range(20, 60, 2)]


def read_as(caller: str, decoder: Decoder, *numbers: int) -> asyncio.Task[list[Pixels | InvalidImage]]:
    """A caller of this name has files read."""

    async def read() -> list[Pixels | InvalidImage]:
        CALLER.set(caller)
        return await decoder.read(numbered(*numbers))

    return asyncio.create_task(read())


async def test_o10_callers_take_turns(decoder: Decoder, reader: Numbers) -> None:
    """However many requests one of them has; of its own, each has a file read in turn."""
    first = await blocked(decoder, reader, 0)
    tasks = [read_as("greedy", decoder, n, n + 1) for n in (10, 20, 30)] + [read_as("modest", decoder, 40, 41)]
    await asyncio.sleep(0)
    reader.opened.set()
    await asyncio.gather(first, *tasks)
    assert reader.seen == [0, 10, 40, 20, 41, 30, 11, 21, 31]


async def test_o10_a_caller_of_whom_nothing_waits_finds_room_in_a_full_queue(decoder: Decoder, reader: Numbers) -> None:
    first = await blocked(decoder, reader, 0)
    tasks = [read_as("greedy", decoder, *range(100, 150)), read_as("greedy", decoder, *range(150, 199))]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull, match="100 image files wait to be read and 1 more"):
        await read_as("greedy", decoder, 1)
    with pytest.raises(QueueFull):
        await read_as("many", decoder, *[1] * (decoding.MOST_FILES + 1))
    modest = read_as("modest", decoder, 1)
    await asyncio.sleep(0)
    reader.opened.set()
    assert values(await modest) == [1]
    await asyncio.gather(first, *tasks)


async def test_what_is_wrong_with_a_file_does_not_hold_it(decoder: Decoder, reader: Numbers) -> None:
    reader.opened.set()
    (error,) = await decoder.read(numbered(13))
    assert isinstance(error, InvalidImage) and error.__traceback__ is None


async def test_a_single_file_is_read_before_most_of_a_large_request(decoder: Decoder, reader: Numbers) -> None:
    first = await blocked(decoder, reader, 0)
    large = asyncio.create_task(decoder.read(numbered(*range(100, 150))))
    await asyncio.sleep(0)
    single = asyncio.create_task(decoder.read(numbered(7)))
    await asyncio.sleep(0)
    reader.opened.set()
    await asyncio.gather(first, large, single)
    assert reader.seen[:4] == [0, 100, 7, 101]


async def test_files_that_take_long_are_given_back(
    decoder: Decoder, reader: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a request of many of them holds up nobody for more than one."""
    monkeypatch.setattr(decoding, "MOST_SECONDS", 0)
    large = await blocked(decoder, reader, *range(100, 110))
    single = asyncio.create_task(decoder.read(numbered(7)))
    await asyncio.sleep(0)
    reader.opened.set()
    assert values(await large) == list(range(100, 110))
    assert values(await single) == [7]
    assert 7 in reader.seen[:3]


async def test_files_of_a_caller_who_left_are_not_read(decoder: Decoder, reader: Numbers) -> None:
    first = await blocked(decoder, reader, 0)
    leaving = asyncio.create_task(decoder.read(numbered(1, 2, 3)))
    await asyncio.sleep(0)
    leaving.cancel()
    reader.opened.set()
    await asyncio.gather(first, decoder.read(numbered(5)))
    assert reader.seen == [0, 5]


async def test_a_fault_of_the_reader_fails_its_own_request_only(decoder: Decoder, reader: Numbers) -> None:
    reader.opened.set()
    bad, good = await asyncio.gather(
        decoder.read(numbered(1, 99, 2)), decoder.read(numbered(3)), return_exceptions=True
    )
    assert isinstance(bad, RuntimeError) and str(bad) == "the reader tripped"
    assert isinstance(good, list) and values(good) == [3]
