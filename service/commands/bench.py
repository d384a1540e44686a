"""What `digitserve bench` does: asks a server again and again, and tells how long it took. A client like any other.

In a closed loop so many calls are in flight, each followed by the next. In an
open loop calls are due at a set rate, whether answers come or not, and latencies
count from when a call was due: a server that stalls is charged for the calls
that had to wait for it (G. Tene's "coordinated omission").
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tqdm import tqdm

from protos import digits_pb2, digits_pb2_grpc
from service.client.client_channel import Access
from service.errors import DigitserveError

PERCENTILES = (50, 90, 99, 99.9)
# Above it, calls that are due are not even begun: the client would run out of memory instead of the server.
MOST_IN_FLIGHT = 10_000


@dataclass(slots=True)
class Figures:
    """What came of a load.

    Attributes:
        seconds: How long it lasted.
        latencies: Seconds of each call that was answered.
        errors: How many calls ended with which gRPC status.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        """The summary, line by line."""
        answered = len(self.latencies)
        yield f"{answered} calls answered in {self.seconds:.1f} s, {answered / self.seconds:,.0f} a second"
        if answered:
            times = np.percentile(self.latencies, PERCENTILES) * 1000
            yield ", ".join(f"p{p:g} {ms:.2f} ms" for p, ms in zip(PERCENTILES, times, strict=True))
        for status, count in self.errors.most_common():
            yield f"{count} calls ended with {status}"


class Load:
    """Pictures, asked about in turn."""

    def __init__(self, pictures: Sequence[bytes], address: str, *, timeout_s: float, access: Access):
        """Prepare.

        Args:
            pictures: Image files.
            address: Of the server.
            timeout_s: Deadline of each call.
            access: What the server wants of its callers.
        """
        self._requests = [digits_pb2.ClassifyRequest(image=picture) for picture in pictures]
        self._address, self._timeout_s, self._access = address, timeout_s, access

    async def run(self, seconds: float, *, in_flight: int, rate: float | None) -> Figures:
        """Ask for some seconds.

        Args:
            seconds: How long calls are begun.
            in_flight: Calls at a time, where no rate is given.
            rate: Calls a second.
        """
        figures, began = Figures(), time.perf_counter()
        async with self._access.aio_channel(self._address, []) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            bar: tqdm[Any]
            with tqdm(unit=" calls", smoothing=0.1, disable=None, leave=False) as bar:
                if rate is None:
                    end = began + seconds
                    await asyncio.gather(*(self._ask_on(stub, n, end, figures, bar) for n in range(in_flight)))
                else:
                    await self._ask_at(stub, rate, began, seconds, figures, bar)
        figures.seconds = time.perf_counter() - began
        return figures

    async def _ask_on(
        self, stub: digits_pb2_grpc.DigitClassifierAsyncStub, n: int, end: float, figures: Figures, bar: tqdm[Any]
    ) -> None:
        """One caller of a closed loop."""
        while (now := time.perf_counter()) < end:
            await self._ask(stub, n, now, figures, bar)
            n += 1

    async def _ask_at(
        self,
        stub: digits_pb2_grpc.DigitClassifierAsyncStub,
        rate: float,
        began: float,
        seconds: float,
        figures: Figures,
        bar: tqdm[Any],
    ) -> None:
        """All callers of an open loop."""
        async with asyncio.TaskGroup() as calls:
            in_flight = asyncio.Semaphore(MOST_IN_FLIGHT)
            for n in range(max(1, round(rate * seconds))):
                due = began + n / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                await in_flight.acquire()
                call = calls.create_task(self._ask(stub, n, due, figures, bar))
                call.add_done_callback(lambda _: in_flight.release())

    async def _ask(
        self, stub: digits_pb2_grpc.DigitClassifierAsyncStub, n: int, due: float, figures: Figures, bar: tqdm[Any]
    ) -> None:
        request = self._requests[n % len(self._requests)]
        try:
            await stub.Classify(request, timeout=self._timeout_s, metadata=self._access.metadata)
            figures.latencies.append(time.perf_counter() - due)
        except grpc.aio.AioRpcError as error:
            figures.errors[f"{error.code().name}: {error.details()}"[:160]] += 1
        bar.update()


def draw(figures: Figures, path: Path) -> None:
    """Write a histogram of the latencies as a picture.

    Raises:
        DigitserveError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DigitserveError("matplotlib is not installed; run: pip install matplotlib, or leave out --plot") from None
    milliseconds = np.array(figures.latencies) * 1000
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(milliseconds, bins=[*np.geomspace(milliseconds.min(), milliseconds.max() * 1.01, 80)], color="#4878a8")
    for percent in PERCENTILES:
        axes.axvline(float(np.percentile(milliseconds, percent)), color="#b04a4a", linewidth=1)
    axes.set(xscale="log", xlabel="answered within, milliseconds (lines: 50, 90, 99 and 99.9 %)", ylabel="calls")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise DigitserveError(f"cannot write {path}: {error}") from None
