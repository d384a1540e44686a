"""pygrpc-native with more calls than it can begin, and with callers who leave at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import pytest

from service.over_grpc.grpcio_options import grpcio_options
from service.over_grpc.native import NativeServer
from service.over_grpc.transport import Transport
from service.settings import Settings
from tests.listening import listening
from tests.robustness import http2
from tests.robustness.http2 import Connection

CALL, HEALTH = "/a.B/C", "/grpc.health.v1.Health/Check"
CALLS, MAX_WAITING = 90, 10
PING = http2.frame(http2.PING, 0, 0, bytes(8))
MESSAGE = http2.message(b"")


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[NativeServer, str, list[str]]]:
    """A server that answers at once, its address, and the paths of the calls it has refused."""
    refused: list[str] = []
    server = NativeServer([], [], max_waiting=MAX_WAITING, on_refused=refused.append)

    async def answer(request: bytes, context: object) -> bytes:
        return b"answer"

    for path in (CALL, HEALTH):
        _, service, method = path.split("/")
        server.add_registered_method_handlers(service, {method: grpc.unary_unary_rpc_method_handler(answer)})
    async with listening(server) as address:
        yield server, address, refused


def call(connection: Connection, path: str, streams: range, *, leave: bool = False) -> None:
    """Begin calls, and leave them; when this returns, which holds up the event loop, that has arrived."""
    for stream in streams:
        connection.open(stream, http2.call_headers(path))
        connection.send(http2.frame(http2.DATA, http2.END_STREAM, stream, MESSAGE))
    settle(connection)
    if leave:
        connection.send(*(http2.frame(http2.RST_STREAM, 0, stream, http2.CANCEL) for stream in streams))
        settle(connection)


def settle(connection: Connection) -> None:
    """Return when the server has read what was sent."""
    connection.send(PING)
    for kind, flags, _, _ in connection.frames():
        if kind == http2.PING and flags == http2.ACK:
            return


def ended(connection: Connection, calls: int) -> Counter[bool]:
    """How many of the calls were answered, and how many got no message."""
    with_message: set[int] = set()
    found: Counter[bool] = Counter()
    for kind, flags, stream, _ in connection.frames():
        if kind == http2.DATA:
            with_message.add(stream)
        if kind == http2.HEADERS and flags & http2.END_STREAM:
            found[stream in with_message] += 1
            if found.total() == calls:
                break
    return found


async def test_of_calls_that_come_faster_than_they_begin_as_many_wait_as_may_and_the_rest_is_refused() -> None:
    """The event loop stands still while they come. Health is not refused."""
    async with serving() as (_, address, refused):
        while not refused:
            with Connection(address) as connection, Connection(address) as prober:
                connection.greet()
                prober.greet()
                call(connection, CALL, range(1, 2 * CALLS, 2))
                call(prober, HEALTH, range(1, 2 * CALLS, 2))
                found = await asyncio.to_thread(ended, connection, CALLS)
                assert await asyncio.to_thread(ended, prober, CALLS) == {True: CALLS}
            assert found[True] >= MAX_WAITING
            assert found[False] == len(refused)
        assert set(refused) == {CALL}


async def test_the_refusal_says_what_is_full() -> None:
    async with serving() as (server, address, _), grpc.aio.insecure_channel(address) as channel:
        server._max_waiting = 0
        stub: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CALL)
        with pytest.raises(grpc.aio.AioRpcError, match="--max-queue-images") as error:
            await stub(b"")
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_nothing_is_left_of_callers_who_leave_before_their_call_has_begun() -> None:
    async with serving() as (server, address, _):
        with Connection(address) as connection:
            connection.greet()
            call(connection, CALL, range(1, 21, 2), leave=True)
        async with grpc.aio.insecure_channel(address) as channel:
            stub: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CALL)
            # Whatever came before it is over when this is answered.
            await stub(b"")
        await asyncio.gather(*(held.task for held in server._calls.values() if held.task))
        assert not server._calls


async def test_t4_a_peer_that_is_gone_is_given_as_long_as_over_grpcio() -> None:
    options = grpcio_options(Settings())
    server = Transport("native", "asked for").server(options, [], max_waiting=MAX_WAITING, on_refused=print)
    assert isinstance(server, NativeServer)
    times = (server._front_args["keepalive_time_ms"], server._front_args["keepalive_timeout_ms"])
    assert times == (dict(options)["grpc.keepalive_time_ms"], dict(options)["grpc.http2.ping_timeout_ms"])
