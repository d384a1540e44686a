"""O2 to O9: what is refused and ended under overload, and that nothing else is. `chaos` measures how fast."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.model.runtime import Session
from service.runs.batching import Batcher
from service.runs.judging import Floats, Images
from service.runs.queueing import Queue
from service.runs.watchdog import ENDING_S, Watchdog
from service.server import running
from tests import test_server
from tests.answering import put
from tests.robustness.hanging import hanging
from tests.server_process import ServerProcess
from tests.test_batching import Numbers, Record, numbered, tell_number
from tests.test_server import RAW_BLANK, free_ports, replace_model, until_metrics_show

INK = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=b"\xff" * 784)
EXHAUSTED, LATE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.fixture(autouse=True)
def _on_each_transport(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(test_server.DEFAULTS, "transport", transport)


class Held:
    """A model whose runs wait until they may go on; it counts the images it has run, and keeps their first pixels."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.may_go_on = threading.Event()
        self.images = 0
        self.pixels: list[int] = []

    def run(self, images: Images) -> tuple[Floats, Floats]:
        self.entered.set()
        self.may_go_on.wait(30)
        self.images += len(images)
        self.pixels += images[:, 0, 0, 0].tolist()
        return np.full((len(images), 10), 0.1, np.float32), np.ones(len(images), np.float32)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """The model of the servers that a test starts."""
    model = Held()
    replace_model(monkeypatch, model.run)
    return model


async def code_of(call: grpc.aio.UnaryUnaryCall[pb.ClassifyRequest, pb.ClassifyResponse]) -> grpc.StatusCode:
    return await call.code()


async def test_o2_a_full_queue_refuses_at_once_and_says_when_to_come_back(held: Held, transport: str) -> None:
    """And what was accepted is answered. The native transport would never answer a call that says when."""
    async with (
        running(free_ports(max_queue_images=8, max_batch_images=8, max_run_images=1)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        accepted = [stub.Classify(RAW_BLANK)]
        await asyncio.to_thread(held.entered.wait, 20)
        accepted += [stub.Classify(RAW_BLANK) for _ in range(8)]
        await until_metrics_show(server.ops_port, "digitserve_queue_images 8.0")
        refused = [stub.Classify(RAW_BLANK) for _ in range(20)]
        for call in refused:
            assert await call.code() == EXHAUSTED
            assert "--max-queue-images" in (await call.details() or "")
            trailers = dict(await call.trailing_metadata())
            assert ("grpc-retry-pushback-ms" in trailers) == (transport == "grpcio")
        held.may_go_on.set()
        assert len(await asyncio.gather(*accepted)) == 9
    assert held.images == 9


async def test_o2_requests_are_limited_by_their_bytes_too(held: Held) -> None:
    """Each has a megabyte of a field that nobody knows; once they are answered there is room again."""
    ballast = b"\x82\x7d\x80\x80\x40" + bytes(1 << 20)
    heavy = pb.ClassifyRequest.FromString(RAW_BLANK.SerializeToString() + ballast)
    async with (
        running(free_ports(max_queue_bytes=4 << 20)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        calls = [asyncio.ensure_future(stub.Classify(heavy)) for _ in range(10)]
        refused = 0
        for call in asyncio.as_completed(calls):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert error.value.code() == EXHAUSTED and "--max-queue-bytes" in (error.value.details() or "")
            if (refused := refused + 1) == 7:
                break
        held.may_go_on.set()
        answered = [call for call in calls if not (call.done() and call.exception())]
        assert len(await asyncio.gather(*answered)) == 3
        await stub.Classify(heavy)


async def test_o5_o7_no_row_of_a_late_or_cancelled_call_ever_runs(held: Held) -> None:
    async with (
        running(free_ports()) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        first = stub.Classify(RAW_BLANK)
        await asyncio.to_thread(held.entered.wait, 20)
        cancelled = [stub.Classify(RAW_BLANK) for _ in range(40)]
        await until_metrics_show(server.ops_port, "digitserve_queue_images 40.0")
        late = [stub.Classify(RAW_BLANK, timeout=0.5) for _ in range(50)]
        for call in cancelled:
            call.cancel()
        assert {await code_of(call) for call in late} == {LATE}
        await until_metrics_show(server.ops_port, "digitserve_queue_images 0.0")
        held.may_go_on.set()
        await first
        await stub.Classify(RAW_BLANK)
    assert held.images == 2


async def test_o6_a_call_without_a_deadline_gets_one(held: Held) -> None:
    """The run it waits for goes on and on, and so does the one that holds the first call."""
    async with (
        running(free_ports(max_call_s=0.5)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        running_one = stub.Classify(RAW_BLANK)
        await asyncio.to_thread(held.entered.wait, 20)
        assert await code_of(stub.Classify(RAW_BLANK)) == LATE
        assert await code_of(running_one) == LATE
        held.may_go_on.set()


def test_o9_a_run_that_hangs_is_ended_and_the_next_one_answered(tmp_path: Path, transport: str) -> None:
    """The model loops for minutes on ink; a blank picture waits behind it."""
    put(tmp_path, 1, hanging())
    flags = ("--models-dir", str(tmp_path), "--max-run-s", "0.3", "--max-run-images", "1", "--transport", transport)
    with ServerProcess(*flags) as server, grpc.insecure_channel(server.grpc_address) as channel:
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        hanging_call = stub.Classify.future(INK)
        answer = stub.Classify(RAW_BLANK, timeout=30)
        assert answer.prediction.rejection_reason == "blank"
        error = hanging_call.exception()
        assert isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.INTERNAL
        assert "terminate" not in (error.details() or "")
        assert "--max-run-s" in server.stop()[1]


def test_o9_a_session_ends_the_run_in_progress_and_runs_again() -> None:
    session = Session(hanging(), device="cpu", threads=1, max_run_images=2)
    ended: list[Exception] = []

    def run() -> None:
        try:
            session.run(np.full((1, 1, 28, 28), 255, np.uint8))
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        session.stop_runs()
        thread.join(0.05)
    assert len(ended) == 1
    assert session.run(np.zeros((1, 1, 28, 28), np.uint8))[0].shape == (1, 10)


async def test_o9_what_cannot_be_ended_ends_the_process() -> None:
    """Nothing else would ever answer, and the process would look well."""
    queue: Queue[Numbers] = Queue(lambda change: None)
    stopped, gave_up = [], []
    watchdog = Watchdog(queue, lambda: stopped.append(1), max_run_s=0.0, give_up=lambda: gave_up.append(1))
    run = watchdog.begin([])
    run.began = time.monotonic() - 1
    watchdog.look(run)
    watchdog.look(run)
    assert stopped == [1] and not gave_up
    run.began -= ENDING_S
    watchdog.look(run)
    assert gave_up == [1]
    run.end()


async def test_o9_the_batch_that_was_ended_fails_alone() -> None:
    stop = threading.Event()

    def run(images: Images) -> Numbers:
        if images[0, 0, 0, 0] == 1:
            stop.wait(30)
            raise RuntimeError("ended")
        return tell_number(images)

    async with Batcher(
        run, max_run_images=1, max_queue_images=9, observer=Record(), max_run_s=0.05, stop_runs=stop.set
    ) as batcher:
        hangs = asyncio.create_task(batcher.submit(numbered(1)))
        answered = await batcher.submit(numbered(2))
        assert answered.answers.numbers == [2]
        with pytest.raises(RuntimeError, match="ended"):
            await hangs


async def test_o7_nothing_is_left_of_a_thousand_cancelled_calls(held: Held) -> None:
    """On connections of their own, each with fewer than the hundred streams it may have."""
    async with (
        running(free_ports()) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        stubs = []
        for _ in range(11):
            own = [("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=own)
            stubs.append(digits_pb2_grpc.DigitClassifierStub(await stack.enter_async_context(channel)))
        first = stubs[0].Classify(RAW_BLANK)
        await asyncio.to_thread(held.entered.wait, 20)
        calls = [stub.Classify(RAW_BLANK) for stub in stubs[1:] for _ in range(99)]
        await until_metrics_show(server.ops_port, "digitserve_queue_images 990.0")
        for call in calls:
            call.cancel()
        await until_metrics_show(server.ops_port, "digitserve_queue_images 0.0")
        held.may_go_on.set()
        await first
        await stubs[0].Classify(RAW_BLANK)
    assert held.images == 2
