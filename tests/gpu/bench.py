"""`make gpu-check`, second part: what the GPU does beside the CPU of the same machine, written into docs/gpu.md.

In process: images a second and milliseconds a run by the size of a run, with and without CUDA graphs, and what another
precision changes. Through the server: single calls, batches and a stream. Nothing here passes or fails but the answers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from model_export.data import load_validation_images
from model_export.judging.pictures import CATEGORIES, synthetic
from service.errors import DeviceMissing
from service.model.devices import GpuOptions
from service.model.runtime import Session
from service.observing import gpu_metrics
from service.pictures.images import ImageReader
from service.settings import MIB, bundled_models
from tests.mnist_files import Pixels, find_mnist, read_images, small_digits
from tests.server_process import ServerProcess

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "gpu.md"
MODEL = (bundled_models() / "digits/1/model.onnx").read_bytes()
SIZES = (1, 8, 32, 128, 512, 1024, 2048, 4096)
SECONDS = 2.0
PICTURES_A_CATEGORY = 20
# Kind of load, processes that make it, and calls in flight in each.
LOADS = (("unary", 8, 32), ("batch", 2, 2), ("stream", 2, 1))


def main() -> None:
    """Measure everything, print it, and put it into the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda", help="to compare with the CPU (default: cuda)")
    parser.add_argument("--out", type=Path, default=DOCUMENT, help="document with the place for the figures")
    options = parser.parse_args()
    try:
        _session(options.device)
    except DeviceMissing as error:
        sys.exit(f"nothing to measure: {error}")
    lines: list[str] = []
    for part in (machine, in_process, precisions, served):
        for line in part(options.device):
            lines.append(line)
            print(line, flush=True)
    text = options.out.read_text()
    measured = "<!-- measured -->\n" + "\n".join(lines) + "\n<!-- end -->"
    options.out.write_text(re.sub(r"<!-- measured -->.*<!-- end -->", lambda _: measured, text, flags=re.DOTALL))


def machine(device: str) -> Iterator[str]:
    """Where and with what."""
    nvml = gpu_metrics.open_nvml()
    gpu = "no NVML"
    if nvml:
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        gpu = f"{nvml.nvmlDeviceGetName(handle)}, driver {nvml.nvmlSystemGetDriverVersion()}"
    yield f"{datetime.now(UTC):%Y-%m-%d}, {gpu}, {os.cpu_count()} cores {platform.machine()}, {', '.join(_versions())}:"
    yield f"`python -m tests.gpu.bench --device {device}`"
    yield ""


def in_process(device: str) -> Iterator[str]:
    """Without a server, by the size of a run, one at a time; the first of a size should be as quick as the others."""
    runs = {"cpu": _session("cpu").run, device: _session(device).run}
    if device.startswith("cuda"):
        runs["with graphs"] = _session(device, GpuOptions(graphs=True)).run
    yield f"| images in a run | {' | '.join(f'{name}, images/s | ms | first, ms' for name in runs)} |"
    yield "|--:" * (1 + 3 * len(runs)) + "|"
    for size in SIZES:
        images = np.resize(small_digits("t10k")[0], (size, 1, 28, 28))
        cells = []
        for run in runs.values():
            first, median = _seconds(partial(run, images))
            cells.append(f"{size / median:,.0f} | {median * 1000:.3f} | {first * 1000:.3f}")
        yield f"| {size:,} | {' | '.join(cells)} |"
    yield ""


def precisions(device: str) -> Iterator[str]:
    """What another precision changes, in digits and in speed."""
    sets = dict(_sets())
    on_cpu = _session("cpu")
    expected = {name: _probabilities(on_cpu, images) for name, images in sets.items()}
    titles = " | ".join(f"{name}: other digits | largest difference" for name in sets)
    yield f"| precision | {titles} | images/s at 1,024 |"
    yield "|---" + "|--:" * (1 + 2 * len(sets)) + "|"
    # TensorRT and TF32: the environment decides, once for a process.
    for precision in ("fp32", "tf32") if device != "tensorrt" else ("fp32", "fp16"):
        session = _session(device, GpuOptions(precision=precision))
        cells = []
        for name, images in sets.items():
            got = _probabilities(session, images)
            others = (got.argmax(1) != expected[name].argmax(1)).sum()
            cells.append(f"{others} of {len(images):,} | {np.abs(got - expected[name]).max():.1e}")
        _, seconds = _seconds(partial(session.run, np.resize(images, (1024, 1, 28, 28))))
        yield f"| {precision} | {' | '.join(cells)} | {1024 / seconds:,.0f} |"
    yield ""


def served(device: str) -> Iterator[str]:
    """Through the server, from Python clients in processes of their own."""
    cells: dict[str, list[str]] = {kind: [] for kind, _, _ in LOADS}
    for each, most in (("cpu", 32), (device, 1024)):
        with ServerProcess("--device", each, "--max-run-images", str(most)) as server:
            for kind, processes, in_flight in LOADS:
                images, latencies = _load(server.grpc_address, kind, processes, in_flight)
                times = "{:.1f}, {:.1f}".format(*np.percentile(latencies, (50, 99)) * 1000) if latencies else ""
                cells[kind].append(f"{images / SECONDS:,.0f} | {times}")
    yield f"| through the server | cpu, images/s | p50, p99 ms | {device}, images/s | p50, p99 ms |"
    yield "|---|--:|--:|--:|--:|"
    for kind, processes, in_flight in LOADS:
        yield f"| {kind}, {processes * in_flight} in flight | {' | '.join(cells[kind])} |"


def _sets() -> Iterator[tuple[str, Pixels]]:
    """Images as the network sees them, uint8 (N, 1, 28, 28)."""
    folder = find_mnist()
    if folder is None:
        yield "scikit-learn's digits", small_digits("t10k")[0][:, None]
        return
    yield "MNIST test", read_images(folder, "t10k")[:, None]
    digits = load_validation_images(folder)
    files = [file for category in CATEGORIES for file, _ in synthetic(category, digits, PICTURES_A_CATEGORY, seed=1)]
    reader = ImageReader(MIB * 16, 16_000_000)
    yield "synthetic", np.stack([reader.read(file) for file in files]).reshape(-1, 1, 28, 28)


def _session(device: str, gpu: GpuOptions | None = None) -> Session:
    return Session(MODEL, device=device, threads=1, max_run_images=SIZES[-1], gpu=gpu)


def _probabilities(session: Session, images: Any) -> Any:
    return np.concatenate([session.run(images[start : start + 1024])[0] for start in range(0, len(images), 1024)])


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """What the first time takes, and the median."""
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    while not seconds or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds[0], float(np.median(seconds))


def _load(address: str, kind: str, processes: int, in_flight: int) -> tuple[float, list[float]]:
    command = [sys.executable, "-m", "tests.gpu.load", address, kind, str(SECONDS), str(in_flight)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    results = [json.loads(process.communicate()[0]) for process in running]
    return sum(sum(each["images"]) for each in results), [value for each in results for value in each["latencies"]]


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for package in ("digitserve", "onnxruntime-gpu", "onnxruntime", "grpcio", "nvidia-cudnn-cu13"):
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            continue


if __name__ == "__main__":
    main()
