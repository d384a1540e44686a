"""`make bench`: what the installed server costs and how fast it is on this machine, beside what nothing can beat.

The server has one core and the load another. Nothing here passes or fails, but a load whose answers were wrong is no
figure and ends the run. Absolute figures drift on shared cores; ratios are of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from service.client import Client, Prediction
from tests.load import asks, h2, open_loop, usage
from tests.load.asks import Ask
from tests.load.floors import in_process_cpu_us, median_seconds
from tests.load.report import Report
from tests.mnist_files import small_digits
from tests.pictures import Pixels
from tests.server_process import ServerProcess

IN_FLIGHT = (1, 8, 32, 128)
BATCHES_IN_FLIGHT = 2
STARTS = 5
OPEN_LOOP_SHARE = 0.5  # of the calls a second that 32 in flight reach


def main() -> None:
    """Measure everything, print a table, and write it as JSON and as a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", type=Path, required=True, help="the digitserve command to measure")
    parser.add_argument("--transport", choices=("grpcio", "native", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for bench.json and bench.png")
    options = parser.parse_args()
    if not h2.is_installed():
        sys.exit("make bench needs h2load, which is in the package nghttp2-client of Debian and Ubuntu")
    server_cpu, load_cpu = _cores()
    os.sched_setaffinity(0, {load_cpu})
    report = Report()
    images, labels = small_digits("t10k")
    bench = Bench(options.server, options.seconds, server_cpu, load_cpu, images, int(labels[0]), report)
    bench.start_up()
    bench.floors()
    for transport in transports(options.transport):
        with bench.server(transport) as server:
            bench.single_calls(server, transport)
            report.add("memory", "resident memory after it", usage.resident_mb(server.process.pid), "MB")
            bench.many_images(server, transport)
            bench.neighbours(server)
    for path in report.write(options.out):
        print(f"wrote {path}")


def transports(asked: str) -> list[str]:
    """The transports to measure; the native one only where it is installed."""
    installed = ["grpcio", "native"] if importlib.util.find_spec("pygrpc_native") else ["grpcio"]
    return installed if asked == "both" else [asked]


def _cores() -> tuple[int, int]:
    """A core for the server and one for the load; the same where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


@contextlib.contextmanager
def _without_pause(ask: Callable[[], object]) -> Iterator[None]:
    """Meanwhile, another thread asks again and again."""
    stopped = threading.Event()

    def flood() -> None:
        while not stopped.is_set():
            ask()

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        yield
    finally:
        stopped.set()
        flooding.join()


class Bench:
    """The loads, one after the other, on one server binary."""

    def __init__(
        self, command: Path, seconds: float, server_cpu: int, load_cpu: int, images: Pixels, digit: int, report: Report
    ):
        """Prepare.

        Args:
            command: The digitserve command.
            seconds: Of each load.
            server_cpu: The server's core.
            load_cpu: The load's core, which this process runs on.
            images: uint8 [N, 28, 28] to ask about.
            digit: What the first one shows.
            report: Where the figures go.
        """
        self._command, self._seconds, self._images, self._digit = command, seconds, images, digit
        self._server_cpu, self._load_cpu = server_cpu, load_cpu
        self._report = report
        self._raw, self._png = asks.raw(images[0]), asks.png(images[0])
        self._alone = 0.0

    def server(self, transport: str = "grpcio") -> ServerProcess:
        """Start the server on its core."""
        return ServerProcess("--transport", transport, command=self._command, cpus=str(self._server_cpu))

    def start_up(self) -> None:
        """From starting the process to a right answer, and the memory after it."""
        seconds, memory = [], []
        for _ in range(STARTS):
            began = time.perf_counter()
            with self.server() as server, Client(server.grpc_address) as client:
                self._check(client.classify(self._images[0]))
                seconds.append(time.perf_counter() - began)
                memory.append(usage.resident_mb(server.process.pid))
        self._report.add("start", f"start to first right answer, median of {STARTS}", statistics.median(seconds), "s")
        self._report.add("memory", "resident memory after it", statistics.median(memory), "MB")

    def floors(self) -> None:
        """The model without a server, and gRPC without a model."""
        os.sched_setaffinity(0, {self._server_cpu})
        self._alone = in_process_cpu_us(self._images, self._seconds)
        os.sched_setaffinity(0, {self._load_cpu})
        self._report.add("floor", "ONNX Runtime in process, runs of 32", self._alone, "us CPU an image")
        command = ["taskset", "-c", str(self._server_cpu), sys.executable, "-m", "tests.load.floors"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as echo:
            assert echo.stdout is not None
            try:
                address = f"127.0.0.1:{int(echo.stdout.readline())}"
                for in_flight in (1, 32):
                    load, cpu_us = self._load(echo.pid, address, self._raw, in_flight)
                    self._report.calls(f"empty grpc.aio call, {in_flight} in flight", load, cpu_us)
            finally:
                echo.kill()

    def single_calls(self, server: ServerProcess, transport: str) -> None:
        """One image a call, in a closed and in an open loop."""
        for in_flight in IN_FLIGHT:
            load = self._checked(f"{transport}: raw image, {in_flight} in flight", server, self._raw, in_flight)
            if in_flight == 1:
                lone_ms = load.percentile_ms(50)
            if in_flight == 32:
                rate = OPEN_LOOP_SHARE * load.calls / load.seconds
        for in_flight in (1, 32):
            self._checked(f"{transport}: PNG file, {in_flight} in flight", server, self._png, in_flight)
        ask = self._raw
        outcome = open_loop.run(server.grpc_address, ask.path, ask.body, rate=rate, seconds=self._seconds)
        load = outcome.answered
        if outcome.refused.calls or outcome.unanswered:
            raise RuntimeError(f"of calls at half of the capacity, not all were answered: {outcome}")
        times = load.percentile_ms(99) / lone_ms
        self._report.calls(f"{transport}: raw image, open loop, {rate:,.0f} calls/s", load, None)
        self._report.add("open loop", "its p99 over the median of a lone call", times, "x")

    def many_images(self, server: ServerProcess, transport: str) -> None:
        """Many images a call; two calls in flight, so that the server need not wait for the client."""
        image = self._images[0]
        for name, ask in (
            ("ClassifyBatch, 64 raw images", asks.batch(image, 64)),
            ("ClassifyBatch, 512 raw images", asks.batch(image, 512)),
            ("ModelInfer, 512 images", asks.infer(image, 512)),
            ("ClassifyStream, raw images", asks.stream(image, 512)),
        ):
            load, cpu_us = self._load(server.process.pid, server.grpc_address, ask, BATCHES_IN_FLIGHT, server)
            rate = load.calls * ask.images / load.seconds
            cpu_us /= ask.images
            note = f"{cpu_us:.1f} us CPU an image, {self._alone / cpu_us:.0%} of it in process"
            self._report.add("many images", f"{transport}: {name}", rate, "images/s", note)

    def neighbours(self, server: ServerProcess) -> None:
        """How long a lone caller waits beside one that asks for much without pause."""
        image, batch = self._images[0], asks.batch(self._images[0], 512)
        with Client(server.grpc_address, timeout_s=60) as lone, Client(server.grpc_address, timeout_s=60) as other:

            def waits() -> float:
                return median_seconds(lambda: self._check(lone.classify(image)), self._seconds)

            def send_batches() -> None:
                h2.closed_loop(server.grpc_address, batch.path, batch.body, in_flight=1, seconds=2, cpu=self._load_cpu)

            alone = waits()
            self._report.add("fairness", "lone caller, Python client", alone * 1000, "ms")
            for name, load in (("batches of 512", send_batches), ("explanations", lambda: other.explain(image))):
                with _without_pause(load):
                    beside = waits()
                self._report.add("fairness", f"the same beside {name}", beside * 1000, "ms", f"{beside / alone:.1f} x")

    def _checked(self, name: str, server: ServerProcess, ask: Ask, in_flight: int) -> h2.Load:
        load, cpu_us = self._load(server.process.pid, server.grpc_address, ask, in_flight, server)
        self._report.calls(name, load, cpu_us)
        return load

    def _load(
        self, pid: int, address: str, ask: Ask, in_flight: int, server: ServerProcess | None = None
    ) -> tuple[h2.Load, float]:
        """A closed loop and the CPU microseconds of a call; of a server of ours, the answers must have been right."""
        h2.closed_loop(address, ask.path, ask.body, in_flight=in_flight, seconds=1, cpu=self._load_cpu)
        seen, spent = self._counted(server), usage.cpu_seconds(pid)
        load = h2.closed_loop(
            address, ask.path, ask.body, in_flight=in_flight, seconds=self._seconds, cpu=self._load_cpu
        )
        cpu_us = (usage.cpu_seconds(pid) - spent) / load.calls * 1e6
        change = np.subtract(self._counted(server), seen)
        if server and (change[self._digit] < load.calls * ask.images or change.sum() != change[self._digit]):
            raise RuntimeError(
                f"{ask.path}: {load.calls} calls were answered, and the server read {change.astype(int).tolist()} "
                f"images as 0 to 9, expected only {self._digit}: what it does is no figure"
            )
        return load, cpu_us

    def _counted(self, server: ServerProcess | None) -> list[float]:
        """Images that a server read as 0 to 9."""
        if server is None:
            return [0.0] * 10
        return [server.metric("digitserve_predictions_total", digit=str(digit)) for digit in range(10)]

    def _check(self, prediction: Prediction) -> None:
        if prediction.digit != self._digit:
            raise RuntimeError(f"the server read a {self._digit} as a {prediction.digit}: what it does is no figure")


if __name__ == "__main__":
    main()
