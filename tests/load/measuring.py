"""What a load costs a server: calls, latencies, and the CPU time of all of the server's processes meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from prometheus_client.parser import text_string_to_metric_families

from tests.load import h2, usage
from tests.load.asks import Ask
from tests.load.floors import in_process_cpu_us
from tests.load.report import Report
from tests.pictures import Pixels
from tests.server_process import ServerProcess

WARM_UP_S = 1.0
# A server that is not given a core answers nothing for seconds; then the next try is this much longer.
LONGER = 4
TRIES = 3
# Slices into which a row is cut whose floor is measured before, between and after them.
SLICES = 3
# How many images were read as 0 to 9, float64 [10].
Digits = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """A load and what it cost.

    Attributes:
        load: What came of it.
        cpu_us: Microseconds of the server's CPU time for each call.
    """

    load: h2.Load
    cpu_us: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.load.calls / self.load.seconds


def measure(
    pid: int,
    address: str,
    ask: Ask,
    *,
    in_flight: int,
    seconds: float,
    cpu: int | str,
    connections: int = h2.CONNECTIONS,
    counted: Callable[[], object] = lambda: None,
) -> Measured:
    """Load a server in a closed loop, after a while in which nothing is counted.

    Args:
        pid: Of the server, whose descendants count as well.
        address: host:port.
        ask: What to ask.
        in_flight: Calls at a time.
        seconds: How long.
        cpu: The core of the load, or several.
        connections: Over which calls go.
        counted: Called when counting begins.

    Raises:
        h2.NothingAnswered: Not one call was, in ever longer tries.
    """

    def load(seconds: float) -> h2.Load:
        return h2.closed_loop(
            *(address, ask.path, ask.body),
            in_flight=in_flight,
            seconds=seconds,
            cpu=cpu,
            connections=connections,
            content_type=ask.content_type,
        )

    for attempt in range(TRIES):
        try:
            load(min(WARM_UP_S, seconds) * LONGER**attempt)
            counted()
            spent = usage.cpu_seconds(pid)
            done = load(seconds * LONGER**attempt)
            return Measured(done, (usage.cpu_seconds(pid) - spent) / done.calls * 1e6)
        except h2.NothingAnswered:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def in_turns(
    floor: Callable[[], float], work: Callable[[], Measured], slices: int = SLICES
) -> list[tuple[Measured, float]]:
    """Measure work in slices, with what it is compared to before, between and after them: a core's speed drifts.

    Returns:
        Each slice, and the mean of the floor just before and just after it.
    """
    before, measured = floor(), []
    for _ in range(slices):
        done, after = work(), floor()
        measured.append((done, (before + after) / 2))
        before = after
    return measured


class Bench:
    """One digitserve command, its core and the load's, and where the figures go.

    Attributes:
        seconds: Of each load.
        server_cpu: The server's core.
        load_cpu: The load's core.
        cores: All there are.
        images: uint8 [N, 28, 28] to ask about.
        digit: What the first one shows.
        report: Where the figures go.
    """

    def __init__(self, command: Path, seconds: float, images: Pixels, digit: int, report: Report):
        """Choose a core for the server and one for the load; the same where there is only one."""
        self._command = command
        self.cores = sorted(os.sched_getaffinity(0))
        self.server_cpu, self.load_cpu = self.cores[0], self.cores[-1]
        self.seconds, self.images, self.digit, self.report = seconds, images, digit, report

    def server(self, transport: str = "grpcio", *flags: str, cpus: str | None = None) -> ServerProcess:
        """Start the server, on its core unless it is to have others."""
        return ServerProcess("--transport", transport, *flags, command=self._command, cpus=cpus or str(self.server_cpu))

    def alone_us(self, seconds: float | None = None) -> float:
        """CPU microseconds of an image in ONNX Runtime without any server."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.server_cpu})
        try:
            return in_process_cpu_us(self.images, seconds or self.seconds)
        finally:
            os.sched_setaffinity(0, before)

    def measure(
        self,
        server: ServerProcess,
        ask: Ask,
        in_flight: int,
        *,
        seconds: float | None = None,
        cpu: str | None = None,
        connections: int = h2.CONNECTIONS,
    ) -> Measured:
        """Load a server of ours, whose answers must be right; on the load's core unless it is to have others.

        Raises:
            RuntimeError: The server read other digits than the one that is there, or fewer than it answered.
        """
        before = np.zeros(10)

        def counted() -> None:
            before[:] = self.read(server)

        done = measure(
            *(server.process.pid, server.grpc_address, ask),
            in_flight=in_flight,
            seconds=seconds or self.seconds,
            cpu=cpu or self.load_cpu,
            connections=connections,
            counted=counted,
        )
        self.check(server, ask, done.load.calls, before)
        return done

    def check(self, server: ServerProcess, ask: Ask, calls: int, before: Digits) -> None:
        """Compare what a server has read since then with what it was asked in this many calls.

        Raises:
            RuntimeError: As `measure` does.
        """
        read, answered = self.read(server) - before, calls * ask.images
        if read[self.digit] < answered or read.sum() != read[self.digit]:
            raise RuntimeError(
                f"{ask.path}: {answered} images were answered, and the server read {read.astype(int).tolist()} "
                f"as 0 to 9, expected only {self.digit}: what it does is no figure"
            )

    def read(self, server: ServerProcess) -> Digits:
        """Images that a server has read as 0 to 9."""
        families = text_string_to_metric_families(server.get(f"{server.ops_url}/metrics"))
        samples = [sample for family in families for sample in family.samples]
        read = [sample for sample in samples if sample.name == "digitserve_predictions_total"]
        counts = np.zeros(10)
        np.add.at(counts, [int(sample.labels["digit"]) for sample in read], [sample.value for sample in read])
        return counts
