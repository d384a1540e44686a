"""O10: callers take turns in the queue of the model, and none fills it for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from service.errors import QueueFull
from service.observing.metrics import Metrics
from service.over_grpc.interceptors import CallInterceptor
from service.over_grpc.transport import Transport
from service.runs.batching import Batcher
from service.runs.queueing import Outcome
from service.runs.turns import CALLER, Turns
from tests.listening import listening
from tests.test_batching import Gate, Numbers, make, numbered, settle


@dataclass(frozen=True)
class Thing:
    caller: str
    number: int


def test_one_of_each_caller_in_turn_and_of_one_in_the_order_of_arrival() -> None:
    turns: Turns[Thing] = Turns()
    for caller, number in ("a1", "a2", "a3", "b1", "c1", "c2"):
        turns.add(Thing(caller, int(number)))
    assert [turns.pop().caller for _ in range(2)] == ["a", "b"]
    turns.put_back(Thing("b", 0))
    turns.put_back(Thing("b", -1))
    turns.add(Thing("d", 1))
    turns.remove(Thing("c", 1))
    assert len(turns) == 6 and Thing("c", 2) in turns and Thing("c", 1) not in turns
    left = [turns.pop() for _ in range(6)]
    assert [f"{thing.caller}{thing.number}" for thing in left] == ["b-1", "c2", "a2", "d1", "b0", "a3"]
    assert not turns


def submit_as(caller: str, batcher: Batcher[Numbers], *numbers: int) -> asyncio.Task[Outcome[Numbers]]:
    """A caller of this name submits images."""

    async def submit() -> Outcome[Numbers]:
        CALLER.set(caller)
        return await batcher.submit(numbered(*numbers))

    return asyncio.create_task(submit())


async def test_o10_callers_take_turns_and_each_keeps_the_order_of_its_own() -> None:
    gate = Gate()
    async with make(gate, max_run_images=2) as batcher:
        tasks = [submit_as("first", batcher, 0)]
        await gate.wait_entered()
        tasks += [submit_as("greedy", batcher, n) for n in range(1, 6)]
        tasks += [submit_as("large", batcher, 20, 21, 22, 23)]
        tasks += [submit_as("modest", batcher, 9)]
        await settle()
        gate.opened.set()
        await asyncio.gather(*tasks)
    assert gate.seen == [[0], [1], [20, 21], [9, 2], [22, 23], [3, 4], [5]]


async def test_o10_single_images_wait_for_one_part_however_many_callers_have_large_groups() -> None:
    gate = Gate()
    async with make(gate, max_run_images=2) as batcher:
        tasks = [submit_as("first", batcher, 0)]
        await gate.wait_entered()
        tasks += [submit_as(f"large {n}", batcher, n, n, n, n) for n in (10, 20, 30)]
        tasks += [submit_as("modest", batcher, 1), submit_as("another", batcher, 2), submit_as("modest", batcher, 3)]
        await settle()
        gate.opened.set()
        await asyncio.gather(*tasks)
    assert gate.seen == [[0], [10, 10], [1, 2], [20, 20], [3], [30, 30], [10, 10], [20, 20], [30, 30]]


async def test_o10_a_caller_of_whom_nothing_waits_finds_room_in_a_full_queue() -> None:
    gate = Gate()
    async with make(gate, max_run_images=2, max_queue_images=8) as batcher:
        tasks = [submit_as("greedy", batcher, 1)]
        await gate.wait_entered()
        tasks += [submit_as("greedy", batcher, n) for n in range(8)]
        await settle()
        with pytest.raises(QueueFull):
            await submit_as("greedy", batcher, 9)
        with pytest.raises(QueueFull):
            await submit_as("large", batcher, 1, 2, 3)
        tasks += [submit_as("modest", batcher, 99)]
        await settle()
        with pytest.raises(QueueFull):
            await submit_as("modest", batcher, 98)
        tasks += [submit_as("another", batcher, 97)]
        await settle()
        with pytest.raises(QueueFull):
            await submit_as("one too many", batcher, 96)
        gate.opened.set()
        await asyncio.gather(*tasks)
    assert len(gate.seen[1:]) == 5 and gate.seen[1:3] == [[0, 99], [97, 1]]


async def test_o10_streams_of_several_callers_take_turns_whatever_carries_them(transport: str) -> None:
    gate = Gate()
    arrived: asyncio.Queue[int] = asyncio.Queue()
    calls = CallInterceptor(Metrics(), None, max_message_bytes=10_000)
    server = Transport(transport, "asked for").server([], [], max_waiting=99, on_refused=print)
    async with make(gate, max_run_images=1) as batcher:

        async def classify(requests: AsyncIterator[bytes], context: object) -> None:
            async with asyncio.TaskGroup() as submitted:
                async for request in requests:
                    submitted.create_task(batcher.submit(numbered(*request)))
                    arrived.put_nowait(request[0])

        handler: Any = grpc.stream_stream_rpc_method_handler(classify, request_deserializer=bytes)
        calls.before(server).add_registered_method_handlers("a.B", {"C": handler})
        async with listening(server) as address, asyncio.timeout(60):

            async def send(*numbers: int) -> None:
                async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                    stream: Any = channel.stream_stream("/a.B/C")
                    call = stream(bytes([number]) for number in numbers)
                    assert await call.code() == grpc.StatusCode.OK

            streams = [asyncio.create_task(send(0, 1, 2, 3, 4))]
            assert [await arrived.get() for _ in range(5)] == [0, 1, 2, 3, 4]
            streams += [asyncio.create_task(send(9))]
            assert await arrived.get() == 9
            await settle()
            gate.opened.set()
            await asyncio.gather(*streams)
    assert gate.seen == [[0], [1], [9], [2], [3], [4]]
