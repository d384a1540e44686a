"""O11: callers who do not take what they asked for, over sockets whose windows stay shut."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.errors import DeadlinePassed
from service.observing.metrics import Metrics
from service.over_grpc import answers, calls
from service.over_grpc.calls import WEIGHT_BYTES, Streams
from service.over_grpc.interceptors import CallInterceptor
from service.server import running
from tests.listening import listening
from tests.robustness import http2
from tests.server_process import ServerProcess
from tests.test_server import RAW_BLANK, free_ports

EXPLAIN = "/digits.v1.DigitClassifier/Explain"
STREAM = "/a.B/Stream"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
IMAGE = pb.ExplainRequest(image=Path("service/examples/seven.png").read_bytes())
NO_WINDOW = struct.pack(">HI", 4, 0)


class Deaf:
    """A caller who never opens the windows of its streams; its methods wait, in a thread."""

    def __init__(self, connection: http2.Connection):
        self.connection = connection
        self._streams = 0

    async def call(self, path: str, body: bytes, *, ends: bool = True) -> int:
        """Make a call; its stream."""
        stream = 2 * self._streams + 1
        self._streams += 1
        self.connection.open(stream, http2.call_headers(path))
        end = http2.END_STREAM if ends else 0
        self.connection.send(http2.frame(http2.DATA, end, stream, http2.message(body)))
        return stream

    async def is_refused(self, stream: int) -> bool:
        """Whether all that is said to a call is a status, which needs no window."""

        def first_flags() -> int:
            frames = self.connection.frames()
            return next(flags for kind, flags, which, _ in frames if (kind, which) == (http2.HEADERS, stream))

        return bool(await asyncio.to_thread(first_flags) & http2.END_STREAM)

    async def closed(self) -> None:
        """Wait until the server closes."""
        assert await asyncio.to_thread(self.connection.until) is None

    async def until_headers(self, stream: int) -> None:
        """Wait until the call is answered, but for what it would have to take."""
        assert not await self.is_refused(stream)


@contextlib.asynccontextmanager
async def deaf(address: str) -> AsyncIterator[Deaf]:
    with http2.Connection(address) as connection:
        connection.greet(NO_WINDOW)
        yield Deaf(connection)


async def test_o11_whoever_does_not_take_a_large_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are not."""
    monkeypatch.setattr(answers, "MAX_SEND_S", 0.2)
    async with running(free_ports(transport="grpcio")) as server:
        address = f"127.0.0.1:{server.grpc_port}"
        async with grpc.aio.insecure_channel(address) as channel, deaf(address) as caller:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            await stub.Classify(RAW_BLANK)
            await caller.call(EXPLAIN, IMAGE.SerializeToString())
            await caller.closed()
            assert channel.get_state() is grpc.ChannelConnectivity.READY
            await stub.Explain(IMAGE)


async def test_o11_large_answers_are_refused_while_too_many_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one connection sooner than of all; small ones are not, and whoever leaves makes room."""
    async with running(free_ports(transport="grpcio")) as server, contextlib.AsyncExitStack() as stack:
        address = f"127.0.0.1:{server.grpc_port}"
        stub = digits_pb2_grpc.DigitClassifierStub(await stack.enter_async_context(grpc.aio.insecure_channel(address)))
        size = (await stub.Explain(IMAGE)).ByteSize()
        monkeypatch.setattr(answers, "MOST_BYTES_OF_ONE", size * 3 // 2)
        monkeypatch.setattr(answers, "MOST_BYTES", size * 7 // 2)
        callers = [await stack.enter_async_context(deaf(address)) for _ in range(2)]
        for caller in callers:
            for _ in range(2):
                await caller.until_headers(await caller.call(EXPLAIN, IMAGE.SerializeToString()))
            assert await caller.is_refused(await caller.call(EXPLAIN, IMAGE.SerializeToString()))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Explain(IMAGE)
        assert error.value.code() == EXHAUSTED and "not taken" in (error.value.details() or "")
        await stub.Classify(RAW_BLANK)
        callers[0].connection.socket.close()
        for _ in range(2000):
            if await stub.Explain(IMAGE).code() == grpc.StatusCode.OK:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("20 s were not enough")


async def test_whoever_leaves_while_an_answer_is_sent_writes_nothing_into_the_log() -> None:
    with ServerProcess("--transport", "grpcio") as server:
        async with deaf(server.grpc_address) as caller:
            await caller.until_headers(await caller.call(EXPLAIN, IMAGE.SerializeToString()))
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            await digits_pb2_grpc.DigitClassifierStub(channel).Classify(RAW_BLANK)
        assert "Traceback" not in server.stop()[1]


@contextlib.asynccontextmanager
async def streaming(max_write_s: float) -> AsyncIterator[tuple[str, CallInterceptor]]:
    """A server with a stream that answers every message with its like."""
    interceptor = CallInterceptor(Metrics(), None, max_message_bytes=1 << 20, holds_back=True)
    streams = Streams(interceptor.draining, interceptor.answers.hang_up, max_write_s=max_write_s)

    async def stream(requests: AsyncIterator[Any], context: Any) -> None:
        async def same(requests: Sequence[Any]) -> Sequence[Any]:
            return requests

        await streams.answer_in_order(requests, same, context, is_small=bool, window=4)

    server = grpc.aio.server()
    kind = pb.ClassifyRequest
    handler = grpc.stream_stream_rpc_method_handler(cast(Any, stream), kind.FromString, kind.SerializeToString)
    interceptor.before(server).add_registered_method_handlers("a.B", {"Stream": handler})
    async with listening(server) as address:
        yield address, interceptor


async def test_o11_whoever_reads_no_answers_of_a_stream_is_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    async with streaming(max_write_s=0.2) as (address, interceptor), deaf(address) as caller:
        await caller.call(STREAM, RAW_BLANK.SerializeToString(), ends=False)
        await caller.closed()
        await interceptor.idle.wait()
    assert "fault" not in caplog.text


async def test_o11_whoever_leaves_a_stream_while_it_is_written_to_is_no_fault_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with streaming(max_write_s=60) as (address, interceptor), deaf(address) as caller:
        stream = await caller.call(STREAM, RAW_BLANK.SerializeToString(), ends=False)
        await caller.until_headers(stream)
        caller.connection.send(http2.frame(http2.RST_STREAM, 0, stream, http2.CANCEL))
        await interceptor.idle.wait()
    assert "fault" not in caplog.text


class Written:
    """A call of nobody who could be hung up on; keeps what is written, or lets it take for ever."""

    def __init__(self, *, reads: bool):
        self._reads = reads
        self.messages: list[pb.ClassifyStreamResponse] = []

    def peer(self) -> str:
        return "unix:"

    async def write(self, message: pb.ClassifyStreamResponse) -> None:
        if not self._reads:
            await asyncio.Event().wait()
        self.messages.append(message)


async def answer(requests: Sequence[pb.ClassifyStreamRequest]) -> list[pb.ClassifyStreamResponse]:
    return [pb.ClassifyStreamResponse() for _ in requests]


async def test_o11_a_stream_that_nobody_reads_ends_where_nobody_can_be_hung_up_on() -> None:
    """As behind the native transport, where streams come through a Unix socket."""

    async def requests() -> AsyncIterator[pb.ClassifyStreamRequest]:
        while True:
            yield pb.ClassifyStreamRequest()
            await asyncio.sleep(0)

    streams = Streams(asyncio.Event(), answers.Answers().hang_up, max_write_s=0.05)
    with pytest.raises(ExceptionGroup) as error:
        await streams.answer_in_order(requests(), answer, cast(Any, Written(reads=False)), is_small=bool, window=4)
    assert error.group_contains(DeadlinePassed, match="the caller reads none")


async def test_o11_a_stream_holds_only_so_many_bytes() -> None:
    """A window of eight is full with two messages that weigh four."""
    received, may_answer = 0, asyncio.Event()

    async def requests() -> AsyncIterator[pb.ClassifyStreamRequest]:
        nonlocal received
        for _ in range(5):
            received += 1
            yield pb.ClassifyStreamRequest(image=bytes(3 * WEIGHT_BYTES))

    async def answer_later(requests: Sequence[pb.ClassifyStreamRequest]) -> list[pb.ClassifyStreamResponse]:
        await may_answer.wait()
        return await answer(requests)

    streams, call = Streams(asyncio.Event(), bool), Written(reads=True)
    stream = asyncio.create_task(
        streams.answer_in_order(requests(), answer_later, cast(Any, call), is_small=bool, window=8)
    )
    for _ in range(100):
        await asyncio.sleep(0)
    assert received == 2
    may_answer.set()
    await stream
    assert len(call.messages) == 5


async def test_streams_have_one_request_at_a_time_once_all_of_them_hold_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever reads goes on beside those who do not, and what these hold is let go of when they end."""
    monkeypatch.setattr(calls, "MOST_BYTES", 1000)
    received: list[str] = []
    streams = Streams(asyncio.Event(), bool)

    def stream(name: str, call: Written) -> asyncio.Task[None]:
        async def requests() -> AsyncIterator[pb.ClassifyStreamRequest]:
            for _ in range(6):
                received.append(name)
                yield pb.ClassifyStreamRequest(image=bytes(800))

        async def answer_one(requests: Sequence[pb.ClassifyStreamRequest]) -> list[pb.ClassifyStreamResponse]:
            await asyncio.sleep(0)
            return await answer(requests)

        return asyncio.create_task(
            streams.answer_in_order(requests(), answer_one, cast(Any, call), is_small=lambda _: False, window=8)
        )

    async def until(count: int, name: str) -> None:
        for _ in range(2000):
            await asyncio.sleep(0)
        assert received.count(name) == count

    unread = stream("unread", Written(reads=False))
    await until(2, "unread")
    reads = Written(reads=True)
    await stream("reads", reads)
    assert len(reads.messages) == 6
    second = stream("second", Written(reads=False))
    await until(1, "second")
    unread.cancel()
    await until(2, "second")
    second.cancel()
    await asyncio.gather(unread, second, return_exceptions=True)
