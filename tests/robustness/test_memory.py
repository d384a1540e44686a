"""T11: what callers send is in memory while it is worked on and no longer, and only so much of it at a time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import struct
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from protos import digits_pb2 as pb
from service.errors import InvalidImage
from service.observing.metrics import Metrics
from service.over_grpc import bodies
from service.over_grpc.interceptors import CallInterceptor
from service.over_grpc.transport import choose
from tests.listening import listening
from tests.robustness import http2

Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
OK, EXHAUSTED = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED
SMALL = b"small"
UNLIMITED = ("grpc.max_receive_message_length", -1)


def large(megabytes: int = 1) -> bytes:
    """A message of a little more."""
    return pb.ClassifyRequest(image=bytes(megabytes << 20)).SerializeToString()


class Request:
    """A request that tells whether it is still there."""

    def __init__(self, data: bytes):
        self.data = data


class Held:
    """Handles calls once it may; knows their requests, and of how many large ones it had to wait with."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.requests: list[weakref.ref[Request]] = []
        self.in_progress = self.most = 0

    def parse(self, data: bytes) -> Request:
        request = Request(data)
        self.requests.append(weakref.ref(request))
        return request

    async def handle(self, request: Request, context: object) -> bytes:
        is_large = request.data != SMALL
        self.in_progress += is_large
        self.most = max(self.most, self.in_progress)
        try:
            if is_large:
                await self.may_answer.wait()
            return b"answer"
        finally:
            self.in_progress -= is_large


@contextlib.asynccontextmanager
async def serving(held: Held, handle: Any, transport: str = "grpcio") -> AsyncIterator[tuple[str, CallInterceptor]]:
    calls = CallInterceptor(Metrics(), None, max_message_bytes=64 << 20, holds_back=transport == "grpcio")
    server = choose(transport, not_native=()).server([UNLIMITED], [], max_waiting=9, on_refused=print)
    handler = grpc.unary_unary_rpc_method_handler(handle, held.parse, bytes)
    calls.before(server).add_registered_method_handlers("a.B", {"C": handler})
    async with listening(server) as address:
        yield address, calls


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Call]:
    """The call over a connection of its own."""
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel.unary_unary("/a.B/C", None, None)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("20 s were not enough")


async def test_a_call_that_failed_leaves_nothing_until_the_next_garbage_collection(transport: str) -> None:
    async def fail(request: Request, context: object) -> bytes:
        error = InvalidImage("unreadable")
        raise error

    held = Held()
    gc.disable()
    try:
        async with serving(held, fail, transport) as (address, calls), connected(address) as call:
            for _ in range(5):
                assert await call(SMALL).code() == grpc.StatusCode.INVALID_ARGUMENT
            await calls.idle.wait()
            await until(lambda: not any(request() for request in held.requests))
            assert len(held.requests) == 5
    finally:
        gc.enable()


async def test_a_request_whose_answer_nobody_takes_is_let_go() -> None:
    async def answer(request: Request, context: object) -> bytes:
        return b"answer"

    held = Held()
    async with serving(held, answer) as (address, _):
        with http2.Connection(address) as connection:
            connection.greet(struct.pack(">HI", 4, 0))
            connection.open(1, http2.call_headers("/a.B/C"))
            connection.send(http2.frame(http2.DATA, http2.END_STREAM, 1, http2.message(SMALL)))
            assert await asyncio.to_thread(connection.until, http2.HEADERS) == http2.HEADERS
            await until(lambda: not any(request() for request in held.requests))
            assert len(held.requests) == 1


async def test_of_a_hundred_large_requests_a_few_are_read_at_a_time_and_all_are_answered() -> None:
    """Small ones of others are answered meanwhile, and those of the same caller afterwards."""
    held = Held()
    async with (
        serving(held, held.handle) as (address, _),
        connected(address) as greedy,
        connected(address) as modest,
    ):
        calls = [greedy(large(), timeout=60) for _ in range(100)]
        await until(lambda: held.in_progress >= bodies.MOST_AT_ONCE)
        for _ in range(20):
            assert await modest(SMALL, timeout=20) == b"answer"
        assert held.in_progress <= bodies.MOST_OF_ALL
        held.may_answer.set()
        assert await asyncio.gather(*calls) == [b"answer"] * 100
    assert bodies.MOST_AT_ONCE <= held.most <= bodies.MOST_OF_ALL


async def test_small_requests_do_not_wait_for_a_huge_one_of_another() -> None:
    held = Held()
    async with serving(held, held.handle) as (address, _), connected(address) as huge, connected(address) as modest:
        call = huge(large(bodies.MOST_OF_ALL), timeout=60)
        await until(lambda: bool(held.in_progress))
        assert [await modest(SMALL, timeout=20) for _ in range(5)] == [b"answer"] * 5
        held.may_answer.set()
        assert await call == b"answer"


async def test_those_who_wait_may_leave_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_WAITING", 10)
    held = Held()
    async with serving(held, held.handle) as (address, _), connected(address) as greedy:
        calls = [greedy(large(), timeout=60) for _ in range(60)]
        await until(lambda: sum(call.done() for call in calls) + held.in_progress + 10 == 60)
        assert {await call.code() for call in calls if call.done()} == {EXHAUSTED}
        left = [call for call in calls if not call.done()]
        for call in left[-5:]:
            call.cancel()
        held.may_answer.set()
        assert [await call.code() for call in left].count(OK) == len(left) - 5
        assert await greedy(SMALL, timeout=20) == b"answer"
    assert not held.in_progress


async def test_t8_those_who_send_slowly_take_nobodys_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """More callers than may have something read have begun to send, and never end."""
    held, begun, begin = Held(), [], bodies.Bodies.begin

    def counted(self: bodies.Bodies) -> bool:
        begun.append(1)
        return begin(self)

    monkeypatch.setattr(bodies.Bodies, "begin", counted)
    async with serving(held, held.handle) as (address, _), connected(address) as modest:
        with contextlib.ExitStack() as stack:
            for _ in range(bodies.MOST_OF_ALL + 1):
                slow = stack.enter_context(http2.Connection(address))
                slow.greet()
                slow.open(1, http2.call_headers("/a.B/C"))
                slow.send(http2.frame(http2.DATA, 0, 1, b"\0"))
            await until(lambda: len(begun) == bodies.MOST_OF_ALL + 1)
            calls = [modest(SMALL, timeout=60) for _ in range(50)]
            assert await asyncio.gather(*calls) == [b"answer"] * 50
