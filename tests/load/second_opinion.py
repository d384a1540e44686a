"""The same load from Triton's perf_analyzer, beside h2load's: two programs that know nothing of each other."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from tests.environments import REPOSITORY, libraries_of_perf_analyzer
from tests.load import asks, usage
from tests.load.measuring import Bench
from tests.server_process import ServerProcess

ENVIRONMENT = REPOSITORY / ".venv-perf_analyzer"
IN_FLIGHT = 32


def perf_analyzer(bench: Bench, server: ServerProcess, transport: str) -> None:
    """ModelInfer with one image and 32 in flight, from either; nothing where perf_analyzer is not installed."""
    libraries = libraries_of_perf_analyzer(ENVIRONMENT)
    if not (ENVIRONMENT / "ready").exists() or not all(folder.exists() for folder in libraries):
        return
    with bench.report.row(name := f"{transport}: ModelInfer, {IN_FLIGHT} in flight, h2load"):
        done = bench.measure(server, asks.infer(bench.images[0], 1), IN_FLIGHT)
        bench.report.calls(name, done.load, done.cpu_us)
        other = f"{transport}: ModelInfer, {IN_FLIGHT} in flight, perf_analyzer"
        spent = usage.cpu_seconds(server.process.pid)
        read = server.metric("digitserve_predictions_total")
        said = _run(bench, server.grpc_address, libraries, done.load.calls)
        cpu_us = (usage.cpu_seconds(server.process.pid) - spent) * 1e6
        cpu_us /= server.metric("digitserve_predictions_total") - read
        rate, latencies = parse(said)
        times = ", ".join(f"p{percent} {ms:.2f}" for percent, ms in latencies.items())
        note = f"{cpu_us:7.1f} us CPU a call   {times} ms"
        bench.report.add("second opinion", other, rate, "calls/s", note, cpu_us=cpu_us)


def parse(said: str) -> tuple[float, dict[int, float]]:
    """Calls a second, and milliseconds by percentile, from what perf_analyzer said.

    Raises:
        RuntimeError: It said something else.
    """
    rate = re.search(r"Throughput: ([\d.]+) infer/sec", said)
    latencies = {int(percent): int(us) / 1000 for percent, us in re.findall(r"p(\d\d) latency: (\d+) usec", said)}
    if rate is None or not {50, 99} <= latencies.keys():
        raise RuntimeError(f"perf_analyzer told no throughput or latency, but: {said.strip()[-300:]}")
    return float(rate[1]), {percent: latencies[percent] for percent in (50, 99)}


def _run(bench: Bench, address: str, libraries: list[Path], calls: int) -> str:
    """What perf_analyzer prints, on the load's core, that measures three times as many calls."""
    image = {"b64": base64.b64encode(bench.images[0].tobytes()).decode(), "shape": [1, 28, 28]}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as data:
        json.dump({"data": [{"image": image}]}, data)
        data.flush()
        command = ["taskset", "-c", str(bench.load_cpu), str(ENVIRONMENT / "bin" / "perf_analyzer")]
        command += ["-m", "digits", "-i", "grpc", "-u", address, "--async", "--input-data", data.name]
        command += ["--concurrency-range", f"{IN_FLIGHT}:{IN_FLIGHT}"]
        # Three windows are the fewest, and enough however much they differ on a shared machine.
        command += ["--measurement-mode", "count_windows", "--measurement-request-count", str(calls)]
        command += ["--stability-percentage", "999"]
        environ = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60 + 20 * bench.seconds)
    if done.returncode:
        raise RuntimeError(f"perf_analyzer ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")
    return done.stdout
