"""`make bench`: what the installed server costs and how fast it is on this machine, beside what nothing can beat.

The server has one core and the load another. Nothing here passes or fails, but a load whose answers were wrong is no
figure and ends the run. Absolute figures drift on shared cores; ratios are of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from protos import digits_pb2 as pb
from service.client import Client, Prediction, Result
from tests.load import h2, usage
from tests.load.floors import in_process_images_a_second, median_seconds
from tests.load.report import Report
from tests.mnist_files import small_digits
from tests.pictures import Pixels, encode
from tests.server_process import ServerProcess

CLASSIFY = "/digits.v1.DigitClassifier/Classify"
IN_FLIGHT = (1, 8, 32, 128)
STARTS = 5
OPEN_LOOP_SHARE = 0.5  # of the calls a second that 32 in flight reach


def main() -> None:
    """Measure everything, print a table, and write it as JSON and as a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", type=Path, required=True, help="the digitserve command to measure")
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
    with bench.server() as server:
        bench.single_calls(server)
        bench.many_images(server)
        bench.neighbours(server)
        report.add("memory", "resident memory at the end", usage.resident_mb(server.process.pid), "MB")
    for path in report.write(options.out):
        print(f"wrote {path}")


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
        raw = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=images[0].tobytes())
        self._raw, self._png = raw.SerializeToString(), pb.ClassifyRequest(image=encode(images[0])).SerializeToString()
        self._alone = 0.0

    def server(self) -> ServerProcess:
        """Start the server on its core."""
        return ServerProcess(command=self._command, cpus=str(self._server_cpu))

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
        self._alone = in_process_images_a_second(self._images, self._seconds)
        os.sched_setaffinity(0, {self._load_cpu})
        self._report.add("floor", "ONNX Runtime in process, runs of 32", self._alone, "images/s")
        command = ["taskset", "-c", str(self._server_cpu), sys.executable, "-m", "tests.load.floors"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as echo:
            assert echo.stdout is not None
            try:
                address = f"127.0.0.1:{int(echo.stdout.readline())}"
                for in_flight in (1, 32):
                    self._closed(f"empty grpc.aio call, {in_flight} in flight", echo.pid, address, self._raw, in_flight)
            finally:
                echo.kill()

    def single_calls(self, server: ServerProcess) -> None:
        """One image a call, in a closed and in an open loop."""
        for in_flight in IN_FLIGHT:
            load = self._checked(f"raw image, {in_flight} in flight", server, self._raw, in_flight)
            if in_flight == 1:
                lone_ms = load.percentile_ms(50)
            if in_flight == 32:
                rate = OPEN_LOOP_SHARE * load.calls / load.seconds
        for in_flight in (1, 32):
            self._checked(f"PNG file, {in_flight} in flight", server, self._png, in_flight)
        load = h2.open_loop(
            server.grpc_address, CLASSIFY, self._raw, rate=rate, seconds=self._seconds, cpu=self._load_cpu
        )
        times = load.percentile_ms(99) / lone_ms
        self._report.calls(f"raw image, {rate:,.0f} calls/s whether answered or not", load, None)
        self._report.add("open loop", "its p99 over the median of a lone call", times, "x")

    def many_images(self, server: ServerProcess) -> None:
        """Many images a call, from a Python client."""
        with Client(server.grpc_address, timeout_s=60) as client:
            for size in (64, 512):
                batch = list(np.resize(self._images, (size, 28, 28)))
                self._images_a_second(f"ClassifyBatch, {size} raw images", size, partial(client.classify_batch, batch))
            self._images_a_second("ClassifyStream, raw images", size, lambda: list(client.classify_stream(batch)))

    def neighbours(self, server: ServerProcess) -> None:
        """How long a lone caller waits beside clients that ask for much without pause."""
        batch = list(np.resize(self._images, (512, 28, 28)))
        with Client(server.grpc_address, timeout_s=60) as lone, Client(server.grpc_address, timeout_s=60) as greedy:

            def waits() -> float:
                return median_seconds(lambda: self._check(lone.classify(self._images[0])), self._seconds)

            alone = waits()
            self._report.add("fairness", "lone caller, Python client", alone * 1000, "ms")
            for name, ask in (
                ("batches of 512", lambda: greedy.classify_batch(batch)),
                ("explanations", lambda: greedy.explain(self._images[0])),
            ):
                with _without_pause(ask):
                    beside = waits()
                self._report.add("fairness", f"the same beside {name}", beside * 1000, "ms", f"{beside / alone:.1f} x")

    def _closed(self, name: str, pid: int, address: str, message: bytes, in_flight: int) -> h2.Load:
        h2.closed_loop(address, CLASSIFY, message, in_flight=in_flight, seconds=1, cpu=self._load_cpu)
        before = usage.cpu_seconds(pid)
        load = h2.closed_loop(
            address, CLASSIFY, message, in_flight=in_flight, seconds=self._seconds, cpu=self._load_cpu
        )
        self._report.calls(name, load, (usage.cpu_seconds(pid) - before) / load.calls * 1e6)
        return load

    def _checked(self, name: str, server: ServerProcess, message: bytes, in_flight: int) -> h2.Load:
        """As `_closed`, and the server must have counted as many right answers as h2load was given."""

        def counted() -> list[float]:
            return [server.metric("digitserve_predictions_total", digit=str(digit)) for digit in range(10)]

        before = counted()
        load = self._closed(name, server.process.pid, server.grpc_address, message, in_flight)
        change = np.subtract(counted(), before)
        if change[self._digit] < load.calls or change.sum() != change[self._digit]:
            raise RuntimeError(
                f"{name}: {load.calls} calls were answered, and the server read {change.astype(int).tolist()} images "
                f"as 0 to 9, expected only {self._digit}: what it does is no figure"
            )
        return load

    def _images_a_second(self, name: str, images: int, work: Callable[[], Sequence[Result]]) -> None:
        digits = [getattr(result, "digit", None) for result in work()]
        if digits[0] != self._digit or None in digits:
            raise RuntimeError(f"{name}: the answers begin {digits[:5]}: what it does is no figure")
        seconds = median_seconds(work, self._seconds)
        rate = images / seconds
        self._report.add("many images", name, rate, "images/s", f"{rate / self._alone:.0%} of in process")

    def _check(self, prediction: Prediction) -> None:
        if prediction.digit != self._digit:
            raise RuntimeError(f"the server read a {self._digit} as a {prediction.digit}: what it does is no figure")


if __name__ == "__main__":
    main()
