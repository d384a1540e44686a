"""Life and death of the server: readiness, drain, signals, failed starts; in this process, and as the real command."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import urllib.error
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service import server as server_module
from service.batching import Floats, Images
from service.errors import ModelUnusable, PortUnavailable
from service.repository import Model
from service.server import running
from service.settings import Settings
from tests.server_process import COMMAND, ServerProcess

RAW_BLANK = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def free_ports(**others: object) -> Settings:
    return Settings(**{"grpc_port": 0, "http_port": 0, "ops_port": 0, **others})  # type: ignore[arg-type]


def replace_model(monkeypatch: pytest.MonkeyPatch, run: Callable[[Images], tuple[Floats, Floats]]) -> None:
    """Let the server load a model made of a function."""
    model = Model("digits", "1", "", "", 1.0, "", 0.0, ["CPU"], ["CPU"], run)
    monkeypatch.setattr(server_module, "_load_model", lambda settings: model)


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


async def test_until_the_model_is_loaded_the_ports_answer_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader that waits lets the test look in between."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()
    real_load, real_listen = server_module._load_model, server_module._listen

    def listen(*args: object) -> int:
        found = real_listen(*args)  # type: ignore[arg-type]
        port.set_result(found)
        return found

    def load(settings: Settings) -> Model:
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        return real_load(settings)

    monkeypatch.setattr(server_module, "_listen", listen)
    monkeypatch.setattr(server_module, "_load_model", load)

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
        calls = [asyncio.ensure_future(stub.Classify(RAW_BLANK)) for _ in range(16)]
        await entered.wait()
        await asyncio.sleep(0.2)  # all 16 are with the server
        leaving = asyncio.create_task(context.__aexit__(None, None, None))
        await asyncio.sleep(0.2)
        assert not leaving.done()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Classify(RAW_BLANK, timeout=5)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        let_go.set()
        answers = await asyncio.gather(*calls)
        await leaving
    assert [len(answer.prediction.probabilities) for answer in answers] == [10] * 16


async def test_a_call_that_does_not_end_is_cut_off_after_the_drain_timeout() -> None:
    async with running(free_ports(drain_timeout_s=0.2)) as server:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}")
        call = digits_pb2_grpc.DigitClassifierStub(channel).ClassifyStream()
        await call.write(pb.ClassifyStreamRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784)))
        await call.read()
    assert await call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    await channel.close()


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
async def test_a_taken_port_is_named_with_its_flag(flag: str) -> None:
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


def test_nothing_is_reported_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ONNX Runtime's telemetry is on, which it is by default, it leaves a device id and a database."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "CI", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    with ServerProcess() as process:
        process.stop()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(signum: signal.Signals) -> None:
    with ServerProcess() as process:
        code, stderr = process.stop(signum)
    assert code == 0
    assert f"{signum.name}: draining" in stderr
    assert "Traceback" not in stderr


def test_while_draining_the_server_still_serves_and_says_it_is_leaving() -> None:
    with ServerProcess("--drain-delay-s", "30") as process, grpc.insecure_channel(process.grpc_address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)  # type: ignore[attr-defined]
        assert next(watch).status == SERVING
        process.send(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        with pytest.raises(urllib.error.HTTPError, match="503"):
            process.get(f"{process.ops_url}/readyz")
        assert process.get(f"{process.ops_url}/livez") == "ok\n"
        assert process.metric("digitserve_ready") == 0
        assert digits_pb2_grpc.DigitClassifierStub(channel).Classify(RAW_BLANK).model_version == "1"
        process.send(signal.SIGTERM)
        code, stderr = process.stop()
    assert code == 128 + signal.SIGTERM
    assert "second signal" in stderr


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--grpc-port", "x"], 2, "digitserve: --grpc-port: must be a whole number, not 'x'"),
        (
            ["--max-run-images", "0"],
            2,
            "--max-run-images (DIGITSERVE_MAX_RUN_IMAGES): must be between 1 and 4096, not 0",
        ),
        (["--models-dir", "/nowhere"], 3, "/nowhere/digits/<version>/model.onnx does not exist"),
        (["--device", "cuda"], 3, "--device cuda needs CUDAExecutionProvider"),
        (["--host", "192.0.2.1"], 3, "cannot listen on 192.0.2.1 port 8002"),
    ],
)
def test_a_failed_start_is_one_line_and_its_own_exit_code(flags: list[str], code: int, text: str) -> None:
    ports = (
        []
        if "--host" in flags or "--grpc-port" in flags
        else ["--grpc-port", "0", "--http-port", "0", "--ops-port", "0"]
    )
    ended = subprocess.run([COMMAND, "serve", *ports, *flags], capture_output=True, text=True, timeout=60)
    assert ended.returncode == code
    assert text in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""
