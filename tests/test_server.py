"""Life and death of the server: readiness, drain, failed starts; over real sockets, in this process."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service import server as server_module
from service.errors import ModelUnusable, PortUnavailable
from service.model import opening
from service.model.repository import Model
from service.processes import ports
from service.runs.judging import Floats, Images
from service.server import running
from service.settings import Settings
from tests.server_process import wait_until

RAW_BLANK = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


# What a server is started with; the fixture below has those of this file run on each transport. A run that a test holds
# for long must not end the process, which is that of all tests.
DEFAULTS: dict[str, object] = {
    "grpc_port": 0,
    "http_port": 0,
    "ops_port": 0,
    "transport": "grpcio",
    "max_run_s": 600.0,
}


@pytest.fixture(autouse=True)
def _on_each_transport(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEFAULTS, "transport", transport)


def free_ports(**others: object) -> Settings:
    return Settings(**{**DEFAULTS, **others})  # type: ignore[arg-type]


async def until_metrics_show(ops_port: int, line: str) -> None:
    """Wait until /metrics has a line."""

    def is_shown() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/metrics", timeout=10) as response:
            return f"\n{line}\n" in response.read().decode()

    await asyncio.to_thread(wait_until, is_shown)


def replace_model(monkeypatch: pytest.MonkeyPatch, run: Callable[[Images], tuple[Floats, Floats]]) -> None:
    """Let the server load a model made of a function."""
    model = Model("digits", "1", "", "", 1.0, 0.0, "", "", "", "", 0.0, ["CPU"], ["CPU"], run, b"")
    monkeypatch.setattr(server_module, "open_model", lambda *_: model)


async def test_a_server_serves_while_its_context_lasts() -> None:
    async with running(free_ports()) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            response = await digits_pb2_grpc.DigitClassifierStub(channel).Classify(RAW_BLANK)
        assert response.prediction.rejection_reason == "blank"
        assert len({server.grpc_port, server.http_port, server.ops_port}) == 3
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.grpc_port), timeout=5).close()


async def test_an_ipv6_address() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    async with (
        running(free_ports(host="::1")) as server,
        grpc.aio.insecure_channel(f"[::1]:{server.grpc_port}") as channel,
    ):
        assert (await digits_pb2_grpc.DigitClassifierStub(channel).GetModel(pb.GetModelRequest())).name == "digits"


async def test_l9_until_the_model_is_loaded_the_ports_answer_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """L9: a loader that waits lets the test look in between."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()
    real_load, real_listen = opening.open_model, ports.open_grpc

    def listen(*args: object) -> int:
        found = real_listen(*args)  # type: ignore[arg-type]
        port.set_result(found)
        return found

    def load(*arguments: object) -> Model:
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        return real_load(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ports, "open_grpc", listen)
    monkeypatch.setattr(server_module, "open_model", load)

    async def start() -> None:
        async with running(free_ports()):
            started.set()
            await stop.wait()

    started, stop = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(start())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await digits_pb2_grpc.DigitClassifierStub(channel).Classify(RAW_BLANK)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "still being loaded" in (error.value.details() or "")
        go_on.set()
        assert (await watch.read()).status == SERVING
        await started.wait()
        stop.set()
        assert (await watch.read()).status == NOT_SERVING
        await serving


async def test_draining_finishes_what_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that waits holds 16 calls while the server is told to stop."""
    entered, let_go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def run(images: Images) -> tuple[Floats, Floats]:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result(10)
        return np.full((len(images), 10), 0.1, np.float32), np.ones(len(images), np.float32)

    replace_model(monkeypatch, run)
    context = running(free_ports())
    server = await context.__aenter__()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        calls = [asyncio.ensure_future(stub.Classify(RAW_BLANK))]
        await entered.wait()
        calls += [asyncio.ensure_future(stub.Classify(RAW_BLANK)) for _ in range(15)]
        await until_metrics_show(server.ops_port, "digitserve_queue_images 15.0")
        leaving = asyncio.create_task(context.__aexit__(None, None, None))
        await until_metrics_show(server.ops_port, "digitserve_ready 0.0")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Classify(RAW_BLANK, timeout=5)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert error.value.details() == "the server is shutting down; another one may answer"
        assert not leaving.done()
        let_go.set()
        answers = await asyncio.gather(*calls)
        await leaving
    assert [len(answer.prediction.probabilities) for answer in answers] == [10] * 16


async def test_32_callers_at_once_share_two_runs_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run is held until the other 31 are waiting; each caller's image, and answer, is its own."""
    entered, let_go = threading.Event(), threading.Event()

    def run(images: Images) -> tuple[Floats, Floats]:
        entered.set()
        let_go.wait(10)
        probabilities = np.zeros((len(images), 10), np.float32)
        probabilities[:, 0] = images[:, 0, 0, 0]
        return probabilities, np.ones(len(images), np.float32)

    replace_model(monkeypatch, run)
    async with (
        running(free_ports()) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        images = [pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes([n]) * 784) for n in range(32)]
        calls = [asyncio.ensure_future(stub.Classify(images[0]))]
        await asyncio.to_thread(entered.wait, 10)
        calls += [asyncio.ensure_future(stub.Classify(image)) for image in images[1:]]
        await until_metrics_show(server.ops_port, "digitserve_queue_images 31.0")
        let_go.set()
        answers = await asyncio.gather(*calls)
        await until_metrics_show(server.ops_port, "digitserve_batch_images_count 2.0")
        await until_metrics_show(server.ops_port, "digitserve_batch_images_sum 32.0")
    assert [answer.prediction.probabilities[0] for answer in answers] == list(range(32))


async def test_a_call_that_does_not_end_is_cut_off_after_the_drain_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, let_go = threading.Event(), threading.Event()

    def run(images: Images) -> tuple[Floats, Floats]:
        entered.set()
        let_go.wait(1)
        return np.full((len(images), 10), 0.1, np.float32), np.ones(len(images), np.float32)

    replace_model(monkeypatch, run)
    async with running(free_ports(drain_timeout_s=0.1)) as server:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        call = digits_pb2_grpc.DigitClassifierStub(channel).Classify(RAW_BLANK)
        await asyncio.to_thread(entered.wait, 10)
    assert await call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    await channel.close()


async def test_l4_draining_ends_an_open_stream_in_words_once_it_is_answered() -> None:
    """L4: the end does not wait for the caller."""
    context = running(free_ports())
    server = await context.__aenter__()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = digits_pb2_grpc.DigitClassifierStub(channel).ClassifyStream()
        await call.write(pb.ClassifyStreamRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784)))
        assert isinstance(await call.read(), pb.ClassifyStreamResponse)
        leaving = asyncio.create_task(context.__aexit__(None, None, None))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "what it received is answered" in (error.value.details() or "")
        await asyncio.wait_for(leaving, 10)


async def test_a_fault_of_ours_is_told_by_an_opaque_id_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def trip(images: Images) -> tuple[Floats, Floats]:
        raise RuntimeError("secret path /srv/models")

    replace_model(monkeypatch, trip)
    async with (
        running(free_ports()) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Classify(RAW_BLANK)
        assert error.value.code() == grpc.StatusCode.INTERNAL
        details = error.value.details() or ""
        assert "secret" not in details and "RuntimeError" not in details
        assert details.rsplit(" ", 1)[1] in caplog.text
        assert "secret path" in caplog.text
        stream = stub.ClassifyStream(iter([pb.ClassifyStreamRequest(format=2, image=bytes(784))]))  # type: ignore[arg-type]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stream.read()
        assert error.value.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in (error.value.details() or "")


@pytest.mark.parametrize("flag", ["grpc_port", "http_port", "ops_port"])
async def test_l10_a_taken_port_is_named_with_its_flag(flag: str) -> None:
    """L10."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortUnavailable) as error:
            async with running(free_ports(**{flag: port})):
                pass
    assert f"127.0.0.1 port {port}" in str(error.value)
    assert f"--{flag.replace('_', '-')}" in str(error.value)


async def test_a_failed_start_leaves_nothing_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ModelUnusable):
        async with running(free_ports(grpc_port=port, models_dir=tmp_path)):
            pass
    socket.create_server(("127.0.0.1", port)).close()
