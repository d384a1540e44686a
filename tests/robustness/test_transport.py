"""T1 to T10: every option of the grpcio transport has its effect on the frames of a caller that behaves badly.

Times are shortened, so that a test waits for one second instead of ten; the
floods themselves are in `chaos`, which measures a good client beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable

import grpc
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from tests.robustness import http2
from tests.robustness.bare_server import serving
from tests.robustness.http2 import Connection

SECOND = 1000
UNAVAILABLE, RESOURCE_EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


async def seconds_until_closed(address: str, begin: Callable[[Connection], object]) -> float | None:
    """How long the server keeps a connection that begins like this; None if longer than 20 s."""

    def wait() -> float | None:
        with Connection(address) as connection:
            begin(connection)
            return connection.seconds_until_closed(20)

    return await asyncio.to_thread(wait)


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(lambda connection: None, id="says nothing"),
        pytest.param(lambda connection: connection.send(http2.PREFACE[:12]), id="half a preface"),
        pytest.param(lambda connection: connection.send(http2.PREFACE), id="no settings"),
    ],
)
async def test_t3_whoever_says_too_little_is_let_go(begin: Callable[[Connection], object]) -> None:
    async with serving(server_handshake_timeout_ms=SECOND, settings_timeout=SECOND) as (address, _):
        assert await seconds_until_closed(address, begin) is not None


async def test_t3_and_so_is_whoever_never_acknowledges_the_settings() -> None:
    """The option of the handshake does not cover it: it keeps its ten seconds here."""
    async with serving(settings_timeout=SECOND) as (address, _):
        closed = await seconds_until_closed(address, lambda c: c.send(http2.PREFACE, http2.frame(http2.SETTINGS, 0, 0)))
        assert closed is not None


async def test_t3_nor_does_the_handshake_wait_for_them() -> None:
    """Here it is the settings that keep their ten seconds."""
    async with serving(server_handshake_timeout_ms=SECOND) as (address, _):
        closed = await seconds_until_closed(address, lambda connection: None)
        assert closed is not None and closed < 9


async def test_t4_the_call_of_a_peer_that_is_gone_is_cancelled() -> None:
    """A peer that answers no ping looks like one whose cable was pulled."""
    async with serving(keepalive_time_ms=SECOND, ping_timeout_ms=SECOND) as (address, answering):
        with Connection(address) as connection:
            connection.greet()
            connection.open(1)
            connection.send(http2.frame(http2.DATA, http2.END_STREAM, 1, http2.message(b"")))
            await asyncio.wait_for(answering.began.wait(), 20)
            await asyncio.wait_for(answering.cancelled.wait(), 20)
            assert await asyncio.to_thread(connection.seconds_until_closed, 20) is not None


async def test_t4_without_a_call_too() -> None:
    async with serving(keepalive_time_ms=SECOND, ping_timeout_ms=SECOND) as (address, _):
        assert await seconds_until_closed(address, Connection.greet) is not None


async def test_t5_there_are_only_so_many_connections() -> None:
    async with serving(max_allowed_incoming_connections=2) as (address, answering):
        answering.may_answer.set()
        with Connection(address) as first, Connection(address) as second:
            for connection in (first, second):
                connection.greet()
                assert await asyncio.to_thread(connection.until, http2.SETTINGS) == http2.SETTINGS
            assert await seconds_until_closed(address, Connection.greet) is not None
        async with grpc.aio.insecure_channel(address) as channel:
            await digits_pb2_grpc.DigitClassifierStub(channel).Classify(pb.ClassifyRequest(), wait_for_ready=True)


async def test_t5_idle_connections_are_let_go() -> None:
    async with serving(max_connection_idle_ms=SECOND) as (address, _):
        with Connection(address) as connection:
            connection.greet()
            assert await asyncio.to_thread(connection.until, http2.GOAWAY) == http2.GOAWAY


async def test_l6_old_connections_are_made_anew_and_their_calls_finish() -> None:
    async with (
        serving(max_connection_age_ms=SECOND) as (address, answering),
        grpc.aio.insecure_channel(address) as channel,
    ):
        call = digits_pb2_grpc.DigitClassifierStub(channel).Classify(pb.ClassifyRequest())
        await asyncio.wait_for(answering.began.wait(), 20)
        with Connection(address) as connection:
            connection.greet()
            assert await asyncio.to_thread(connection.until, http2.GOAWAY) == http2.GOAWAY
        answering.may_answer.set()
        assert isinstance(await call, pb.ClassifyResponse)


async def test_l6_but_not_for_ever() -> None:
    async with serving(connection_age_ms=SECOND, age_grace_ms=SECOND) as (address, answering):
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await digits_pb2_grpc.DigitClassifierStub(channel).Classify(pb.ClassifyRequest())
        assert error.value.code() == UNAVAILABLE
        await asyncio.wait_for(answering.cancelled.wait(), 20)


async def test_t2_a_flood_of_pings_is_answered_with_goaway() -> None:
    async with serving() as (address, _):
        with Connection(address) as connection:
            connection.greet()
            connection.send(http2.frame(http2.PING, 0, 0, bytes(8)) * 10)
            assert await asyncio.to_thread(connection.until, http2.GOAWAY) == http2.GOAWAY


async def test_t9_pings_as_rare_as_documented_are_welcome() -> None:
    async with serving(min_ping_interval_without_data_ms=1) as (address, _):
        with Connection(address) as connection:
            connection.greet()
            for _ in range(5):
                await asyncio.sleep(0.01)
                connection.send(http2.frame(http2.PING, 0, 0, bytes(8)))
            acknowledged = 0
            for kind, flags, _, _ in connection.frames():
                assert kind != http2.GOAWAY
                acknowledged += kind == http2.PING and flags == http2.ACK
                if acknowledged == 5:
                    break


async def test_t1_the_number_of_streams_is_limited_and_honest_callers_may_want_more() -> None:
    async with serving() as (address, answering):
        with Connection(address) as connection:
            connection.greet()
            settings = next(payload for kind, flags, _, payload in connection.frames() if kind == http2.SETTINGS)
            assert dict(struct.iter_unpack(">HI", settings))[3] == 100
        async with grpc.aio.insecure_channel(address) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            calls = [stub.Classify(pb.ClassifyRequest()) for _ in range(500)]
            answering.may_answer.set()
            # Without max_deallocating_streams, most end with RST_STREAM.
            assert len(await asyncio.gather(*calls)) == 500


async def test_t1_rapid_reset_disturbs_nobody_else() -> None:
    async with serving() as (address, answering):
        answering.may_answer.set()
        async with grpc.aio.insecure_channel(address) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            await stub.Classify(pb.ClassifyRequest())
            with Connection(address) as connection:
                connection.greet()

                def attack() -> None:
                    with contextlib.suppress(ConnectionError):
                        for stream in range(1, 4001, 2):
                            connection.open(stream)
                            connection.send(http2.frame(http2.RST_STREAM, 0, stream, http2.CANCEL))

                attacking = asyncio.create_task(asyncio.to_thread(attack))
                answered = 0
                while not attacking.done() or answered < 20:
                    await stub.Classify(pb.ClassifyRequest(), timeout=20)
                    answered += 1
                await attacking


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(http2.frame(http2.SETTINGS, 0, 0), id="settings"),
        pytest.param(http2.frame(http2.DATA, 0, 1), id="empty data"),
        pytest.param(http2.frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)), id="window updates"),
        pytest.param(http2.frame(http2.CONTINUATION, 0, 1, http2.header_block({"x": "y"})), id="continuation"),
        pytest.param(http2.frame(http2.PING, 0, 0, bytes(8)), id="pings"),
        pytest.param(http2.frame(http2.WINDOW_UPDATE, 0, 1, struct.pack(">I", 0)), id="made you reset"),
    ],
)
async def test_t2_floods_disturb_nobody_else(flood: bytes) -> None:
    async with serving() as (address, answering):
        answering.may_answer.set()
        with Connection(address) as connection:
            connection.greet()
            # A stream that is open, in the middle of its headers for CONTINUATION.
            flags = 0 if flood[3] == http2.CONTINUATION else http2.END_HEADERS
            connection.send(http2.frame(http2.HEADERS, flags, 1, http2.call_headers()))

            def attack() -> None:
                with contextlib.suppress(OSError):
                    for _ in range(200):
                        connection.send(flood * 100)

            connection.socket.settimeout(2)
            attacking = asyncio.create_task(asyncio.to_thread(attack))
            async with grpc.aio.insecure_channel(address) as channel:
                stub, answered = digits_pb2_grpc.DigitClassifierStub(channel), 0
                while not attacking.done() or answered < 20:
                    await stub.Classify(pb.ClassifyRequest(), timeout=20)
                    answered += 1
            await attacking


@pytest.mark.parametrize(
    "metadata", [[("x", "a" * 17_000)], [("x", "a" * 100_000)], [(f"k{n}", "v") for n in range(10_000)]]
)
async def test_t7_too_much_metadata_is_refused_and_the_connection_stays(metadata: list[tuple[str, str]]) -> None:
    async with serving() as (address, answering), grpc.aio.insecure_channel(address) as channel:
        answering.may_answer.set()
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Classify(pb.ClassifyRequest(), metadata=metadata)
        assert error.value.code() == RESOURCE_EXHAUSTED
        await stub.Classify(pb.ClassifyRequest())


async def test_i10_a_message_beyond_the_backstop_is_refused_by_the_transport() -> None:
    async with serving(max_receive_message_length=1000) as (address, answering):
        answering.may_answer.set()
        async with grpc.aio.insecure_channel(address) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.Classify(pb.ClassifyRequest(image=bytes(1001)))
            assert error.value.code() == RESOURCE_EXHAUSTED
            await stub.Classify(pb.ClassifyRequest(image=bytes(900)))


async def pings_after_a_body(address: str) -> int:
    """PING frames the server sends before its answer to a call of 200 kB."""

    def call() -> int:
        with Connection(address) as connection:
            connection.greet()
            connection.open(1)
            body = http2.message(pb.ClassifyRequest(image=bytes(50_000)).SerializeToString())
            for start in range(0, len(body), 16_384):
                connection.send(http2.frame(http2.DATA, 0, 1, body[start : start + 16_384]))
            connection.send(http2.frame(http2.DATA, http2.END_STREAM, 1))
            pings = 0
            for kind, flags, _, _ in connection.frames():
                pings += kind == http2.PING and not flags
                if kind == http2.HEADERS:
                    break
            return pings

    return await asyncio.to_thread(call)


@pytest.mark.parametrize(("probe", "pings"), [(0, 0), (1, 1)])
async def test_t11_windows_do_not_grow_by_probing(probe: int, pings: int) -> None:
    async with serving(bdp_probe=probe) as (address, answering):
        answering.may_answer.set()
        assert await pings_after_a_body(address) == pings


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(lambda c: c.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), id="HTTP/1.1"),
        pytest.param(lambda c: c.send(bytes.fromhex("16030100c8010000c40303") + bytes(190)), id="TLS"),
        pytest.param(lambda c: c.send(http2.PREFACE, bytes(range(256)) * 8), id="garbage"),
    ],
)
async def test_t10_what_is_no_http2_is_closed(begin: Callable[[Connection], object]) -> None:
    async with serving() as (address, _):
        assert await seconds_until_closed(address, begin) is not None
