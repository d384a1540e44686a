"""The real command as a process: signals, drain, failed starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.client import AsyncClient
from tests.answering import not_text, put
from tests.pictures import encode, on_paper
from tests.server_process import COMMAND, ServerProcess, wait_until

RAW_BLANK = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
alone_and_with_workers = pytest.mark.parametrize("workers", ["1", "2"])


@alone_and_with_workers
def test_l1_no_call_is_lost_when_a_busy_server_is_told_to_stop(workers: str) -> None:
    """L1: 32 callers who ask without pause see answers, then UNAVAILABLE, and nothing else."""

    async def ask_until_refused(address: str, started: asyncio.Event) -> list[str]:
        async with grpc.aio.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)

            async def ask() -> str:
                while True:
                    try:
                        await stub.Classify(RAW_BLANK)
                        started.set()
                    except grpc.aio.AioRpcError as error:
                        return error.code().name

            return await asyncio.gather(*(ask() for _ in range(32)))

    async def scenario(process: ServerProcess) -> list[str]:
        started = asyncio.Event()
        asking = asyncio.create_task(ask_until_refused(process.grpc_address, started))
        await started.wait()
        process.send(signal.SIGTERM)
        return await asking

    with ServerProcess("--workers", workers) as process:
        codes = asyncio.run(scenario(process))
        process.process.wait(30)
        code, _ = process.stop()
    assert codes == ["UNAVAILABLE"] * 32
    assert code == 0


def test_an_upload_that_never_ends_does_not_hold_the_server() -> None:
    with ServerProcess("--drain-timeout-s", "0.5") as process:
        host, port = process.http_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as upload:
            upload.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
            code, _ = process.stop(timeout_s=20)
    assert code == 0


def test_a_picture_posted_before_the_end_is_answered() -> None:
    """Large enough to be still at work when the signal comes."""
    body = encode(on_paper(np.eye(28, dtype=np.uint8) * 255, scale=120))
    with ServerProcess() as process, ThreadPoolExecutor(4) as pool:
        request = urllib.request.Request(f"{process.http_url}/v1/classify", data=body)

        def post() -> int:
            with urllib.request.urlopen(request, timeout=30) as response:
                response.read()
                return int(response.status)

        answers = [pool.submit(post) for _ in range(4)]
        wait_until(lambda: process.metric("digitserve_decode_seconds_count") > 0)
        code, _ = process.stop()
        assert [answer.result() for answer in answers] == [200] * 4
    assert code == 0


def test_a_signal_before_anything_is_served_ends_the_process_at_once(tmp_path: Path) -> None:
    """The model is a pipe that nobody writes into."""
    (tmp_path / "digits" / "1").mkdir(parents=True)
    os.mkfifo(tmp_path / "digits" / "1" / "model.onnx")
    ports = ["--grpc-port", "0", "--http-port", "0", "--ops-port", "0"]
    command: list[str | Path] = [COMMAND, "serve", *ports, "--models-dir", str(tmp_path), "--drain-delay-s", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(1)
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM)


def test_nothing_is_reported_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ONNX Runtime's telemetry is on, which it is by default, it leaves a device id and a database."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "CI", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    with ServerProcess() as process:
        process.stop()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@alone_and_with_workers
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(signum: signal.Signals, workers: str) -> None:
    with ServerProcess("--workers", workers) as process:
        code, stderr = process.stop(signum)
    assert code == 0
    assert f"{signum.name}: draining" in stderr
    assert "Traceback" not in stderr


@alone_and_with_workers
def test_l1_while_draining_the_server_still_serves_and_says_it_is_leaving(workers: str) -> None:
    """L1."""
    flags = ("--workers", workers, "--drain-delay-s", "30")
    with ServerProcess(*flags) as process, grpc.insecure_channel(process.grpc_address) as channel:
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
    assert "SIGTERM: exiting at once" in stderr


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
        (["--device", "cuda"], 3, "--device cuda does not work: it needs CUDAExecutionProvider"),
        (["--device", "cuda:1", "--on-device-missing", "fail"], 3, "--device cuda:1 does not work"),
        (["--device", "tensorrt"], 3, "--device tensorrt does not work: it needs TensorrtExecutionProvider"),
        (["--host", "192.0.2.1"], 3, "cannot listen on 192.0.2.1 port 8002: Cannot assign requested address; choose"),
        (["--host", "no.such.host.invalid"], 3, "cannot listen on no.such.host.invalid port 8002: "),
        (["--host", "no.such.host.invalid", "--workers", "2"], 3, "cannot listen on no.such.host.invalid port 8001: "),
        (["--host", "a..b"], 3, "cannot listen on a..b port 8002: no address has a name like this; choose"),
        (["--host", "a..b", "--workers", "2"], 3, "cannot listen on a..b port 8001: no address has a name like this"),
        (["--grpc-port", "8000", "--workers", "2"], 2, "(DIGITSERVE_HTTP_PORT) are both 8000; each needs a port of"),
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
    assert "Unknown error" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""


@alone_and_with_workers
def test_a_model_whose_metadata_are_no_text_is_a_failed_start(workers: str, tmp_path: Path) -> None:
    put(tmp_path, 1, not_text())
    ports = ["--grpc-port", "0", "--http-port", "0", "--ops-port", "0"]
    command: list[str | Path] = [COMMAND, "serve", "--workers", workers, *ports, "--models-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "digits/1/model.onnx: the model's names or metadata are no text in UTF-8" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_our_client_loses_no_call_when_one_of_two_servers_goes() -> None:
    async def ask(client: AsyncClient, gone: threading.Event) -> int:
        answered = 0
        while not gone.is_set() or answered < 20:
            await client.classify(np.zeros((28, 28), np.uint8))
            answered += 1
        return answered

    async def scenario(one: ServerProcess, other: ServerProcess) -> list[int]:
        gone = threading.Event()
        async with AsyncClient(f"ipv4:{one.grpc_address},{other.grpc_address}") as client:
            asking = [asyncio.create_task(ask(client, gone)) for _ in range(16)]
            await asyncio.to_thread(wait_until, lambda: one.metric("digitserve_batch_images_count") > 50)
            one.send(signal.SIGTERM)
            await asyncio.to_thread(one.process.wait, 30)
            gone.set()
            return await asyncio.gather(*asking)

    with ServerProcess("--drain-delay-s", "1") as one, ServerProcess() as other:
        assert sum(asyncio.run(scenario(one, other))) > 50
