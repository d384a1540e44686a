"""Triton's perf_analyzer measures the server: over gRPC and HTTP, in every mode, and its split of the time adds up."""

from __future__ import annotations

import asyncio
import base64
import csv
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.observing import gpu_metrics
from service.observing.metrics import Metrics
from service.open_inference.tensors import join_bytes
from tests.conftest import REPOSITORY
from tests.environments import environment, libraries_of_perf_analyzer
from tests.server_process import ServerProcess
from tests.test_gpu_metrics import FakeNvml

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(900)]
Measure = Callable[..., str]


@pytest.fixture(scope="module")
def measure(server: ServerProcess) -> Measure:
    """Runs perf_analyzer on the server and returns what it prints."""
    programs = environment("perf_analyzer")
    libraries = libraries_of_perf_analyzer(programs.parent)
    if not all(folder.exists() for folder in libraries):
        get_debian_library(programs.parent, "libb64-0d")
    environ = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}

    def run(*arguments: str) -> str:
        # Short windows, and no judgement on how steady a shared machine is.
        brief = [
            "--measurement-mode",
            "count_windows",
            "--measurement-request-count",
            "50",
            "--stability-percentage",
            "999",
        ]
        done = subprocess.run(
            [programs / "perf_analyzer", *brief, *arguments], capture_output=True, text=True, env=environ, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "error" not in (done.stdout + done.stderr).lower()
        return done.stdout

    return run


def get_debian_library(folder: Path, package: str) -> None:
    """Unpack a Debian package beside the environment; skips the test if that is not possible."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip(f"perf_analyzer needs Debian's {package}")
    done = subprocess.run(["apt-get", "download", "-q", package], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{package} cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, folder / "debian"], check=True)
    archive.unlink()


def check_split(report: str, measurements: int) -> None:
    """The server's parts of the time make up its whole, which is less than what the client sees."""
    splits = re.findall(
        r"Avg latency: (\d+) usec.*?Avg request latency: (\d+) usec \(overhead (\d+) usec \+ queue (\d+) usec \+ "
        r"compute input (\d+) usec \+ compute infer (\d+) usec \+ compute output (\d+) usec\)",
        report,
        re.DOTALL,
    )
    assert len(splits) == measurements, report
    for split in splits:
        client, server, *parts = map(int, split)
        assert abs(server - sum(parts)) <= 5
        assert parts[3] > 0 and server <= client


@pytest.mark.parametrize(
    ("mode", "batch"),
    [
        ("-i grpc", 1),
        ("-i grpc", 16),
        ("-i grpc --async", 1),
        ("-i grpc --async --streaming", 1),
        ("-i grpc --async --streaming", 16),
        ("-i http", 1),
        ("-i http", 16),
        ("-i http --async", 1),
    ],
)
def test_every_mode(server: ServerProcess, measure: Measure, mode: str, batch: int) -> None:
    report = measure("-m", "digits", *address(server, mode), "-b", str(batch), "--concurrency-range", "1:16:15")
    check_split(report, 2)
    images, runs = (
        sum(map(int, re.findall(rf"{what}: (\d+)", report))) for what in ("Inference count", "Execution count")
    )
    assert images % batch == 0 and batch <= images / runs <= 32


@pytest.mark.parametrize("mode", ["-i grpc --async", "-i grpc --async --streaming", "-i http --async", "-i grpc"])
def test_256_callers(server: ServerProcess, measure: Measure, mode: str) -> None:
    check_split(measure("-m", "digits", *address(server, mode), "--concurrency-range", "256:256"), 1)


@pytest.mark.parametrize("mode", ["-i grpc", "-i http"])
def test_image_files(server: ServerProcess, measure: Measure, mode: str, tmp_path: Path) -> None:
    file = (REPOSITORY / "service" / "examples" / "seven.png").read_bytes()
    # The blob has to carry the length that precedes each element of a BYTES tensor.
    image = {"b64": base64.b64encode(join_bytes([file])).decode(), "shape": [1]}
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"data": [{"image": image}]}))
    check_split(measure("-m", "digits_image", *address(server, mode), "--input-data", str(data)), 1)


def test_it_reads_the_gpus_metrics(server: ServerProcess, measure: Measure, tmp_path: Path) -> None:
    """Of a machine with two GPUs, as an NVML that is handed in has them."""
    metrics = Metrics()
    metrics.show_also(("gpu_uuid",), lambda: gpu_metrics.series(FakeNvml()))
    text = asyncio.run(metrics.exposition())

    class Shown(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", metrics.content_type)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Shown) as shown:
        threading.Thread(target=shown.serve_forever).start()
        try:
            url, report = f"http://127.0.0.1:{shown.server_port}/metrics", tmp_path / "report.csv"
            collect = ["--collect-metrics", "--metrics-url", url, "--metrics-interval", "100"]
            measure("-m", "digits", *address(server, "-i grpc"), *collect, "-f", str(report), "--verbose-csv")
        finally:
            shown.shutdown()
    columns, values = csv.reader(report.read_text().splitlines())
    found = dict(zip(columns, values, strict=True))
    assert found["Avg GPU Utilization"] == "GPU-0:0.25;GPU-1:0.5;"
    assert found["Avg GPU Power Usage"] == "GPU-0:72.5;"
    assert found["Max GPU Memory Usage"] == "GPU-0:1073741824;GPU-1:1073741824;"
    assert found["Total GPU Memory"] == "GPU-0:4294967296;GPU-1:4294967296;"


def address(server: ServerProcess, mode: str) -> list[str]:
    """The mode's flags and where it goes."""
    return [*mode.split(), "-u", server.grpc_address if "grpc" in mode else server.http_url.split("//")[1]]
