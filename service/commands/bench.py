"""What `digitserve bench` does: asks a server again and again, and tells how long it took. A client like any other.

In a closed loop so many calls are in flight, each followed by the next. In an
open loop calls are due at a set rate, whether answers come or not, and latencies
count from when a call was due: a server that stalls is charged for the calls
that had to wait for it (G. Tene's "coordinated omission").
"""

from __future__ import annotations

import asyncio
import contextlib
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
# Above it, calls that are due have to wait. Thousands that end by their deadline make a server close the connection
# ("too many resets"), and grpc.aio then never ends some of them.
MOST_IN_FLIGHT = 1000
# How long after the end calls are begun that were due before it.
LAST_S = 1.0
# The client is to blame where its calls began later than this part of what they took, or it used this part of a core.
TOO_LATE = 0.2
BUSY = 0.8


@dataclass(slots=True)
class Figures:
    """What came of a load.

    Attributes:
        asked: What was asked of the server, in words.
        seconds: How long it lasted.
        client_cpu_s: CPU seconds that the client spent meanwhile.
        latencies: Seconds of each call that was answered.
        late: Seconds after which a call of an open loop began that was due, where it had not to wait for others.
        not_begun: How many calls were due and not begun by the end.
        errors: How many calls ended with which gRPC status and text.
    """

    asked: str
    seconds: float = 0.0
    client_cpu_s: float = 0.0
    latencies: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    not_begun: int = 0
    errors: dict[str, Counter[str]] = field(default_factory=dict)

    def failed(self, status: str, text: str) -> None:
        """Count a call that ended so."""
        self.errors.setdefault(status, Counter())[text[:160]] += 1

    def lines(self) -> Iterator[str]:
        """The summary, line by line."""
        answered = len(self.latencies)
        rate = answered / self.seconds
        yield f"{answered} calls answered in {self.seconds:.1f} s, {rate:,.0f} a second; {self.asked}"
        if answered:
            yield ", ".join(f"p{p:g} {ms:.2f} ms" for p, ms in self.percentiles().items())
        for status, texts in sorted(self.errors.items(), key=lambda ended: -ended[1].total()):
            others = " (and other texts)" if len(texts) > 1 else ""
            yield f"{texts.total()} calls ended with {status}: {texts.most_common(1)[0][0]}{others}"
        if self.not_begun:
            yield f"{self.not_begun} calls that were due were not begun by the end"
        yield from self._doubts()

    def percentiles(self) -> dict[float, float]:
        """Milliseconds in which so many percent of the answered calls were answered."""
        return dict(zip(PERCENTILES, (np.percentile(self.latencies, PERCENTILES) * 1000).tolist(), strict=True))

    def _doubts(self) -> Iterator[str]:
        """Whether it was the client that was measured, and not the server."""
        if self.late and self.latencies:
            late, taken = (np.percentile(values, (50, 99)) * 1000 for values in (self.late, self.latencies))
            if (late > TOO_LATE * taken).any():
                yield (
                    f"this client did not keep the rate: half of the calls began {late[0]:.1f} ms or more after they "
                    f"were due, 1 % {late[1]:.1f} ms, which the latencies contain; ask for less or use several clients"
                )
        if self.client_cpu_s > BUSY * self.seconds:
            share = self.client_cpu_s / self.seconds
            yield f"this client used {share:.0%} of a core and may be slower than the server; run several to find out"


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

    async def run(self, seconds: float, *, in_flight: int, rate: float | None, connections: int) -> Figures:
        """Ask for some seconds.

        Args:
            seconds: How long calls are begun.
            in_flight: Calls at a time, where no rate is given.
            rate: Calls a second.
            connections: Over which they go, in turn; no more than calls in flight. A server's worker gets all of one.
        """
        connections = connections if rate is not None else min(connections, in_flight)
        asked = f"{in_flight} in flight" if rate is None else f"{rate:g} a second were due"
        figures = Figures(f"{asked}, {connections} connection{'s' * (connections > 1)}")
        began, spent = time.perf_counter(), time.process_time()
        async with contextlib.AsyncExitStack() as stack:
            # Otherwise channels to the same address share a connection.
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [self._access.aio_channel(self._address, options) for _ in range(connections)]
            stubs = [digits_pb2_grpc.DigitClassifierStub(await stack.enter_async_context(each)) for each in channels]
            bar: tqdm[Any]
            total = None if rate is None else max(1, round(rate * seconds))
            with tqdm(
                desc=f"{seconds:g} s", total=total, unit=" calls", smoothing=0.1, disable=None, leave=False
            ) as bar:
                if rate is None:
                    end = began + seconds
                    await asyncio.gather(
                        *(self._ask_on(stubs[n % connections], n, end, figures, bar) for n in range(in_flight))
                    )
                else:
                    await self._ask_at(stubs, rate, began, seconds, figures, bar)
        figures.seconds, figures.client_cpu_s = time.perf_counter() - began, time.process_time() - spent
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
        stubs: Sequence[digits_pb2_grpc.DigitClassifierAsyncStub],
        rate: float,
        began: float,
        seconds: float,
        figures: Figures,
        bar: tqdm[Any],
    ) -> None:
        """All callers of an open loop."""
        async with asyncio.TaskGroup() as calls:
            in_flight = asyncio.Semaphore(MOST_IN_FLIGHT)
            total = max(1, round(rate * seconds))
            for n in range(total):
                due = began + n / rate
                if time.perf_counter() > began + seconds + LAST_S:
                    figures.not_begun = total - n
                    break
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if not in_flight.locked():
                    figures.late.append(time.perf_counter() - due)
                await in_flight.acquire()
                call = calls.create_task(self._ask(stubs[n % len(stubs)], n, due, figures, bar))
                call.add_done_callback(lambda _: in_flight.release())

    async def _ask(
        self, stub: digits_pb2_grpc.DigitClassifierAsyncStub, n: int, due: float, figures: Figures, bar: tqdm[Any]
    ) -> None:
        request = self._requests[n % len(self._requests)]
        try:
            await stub.Classify(request, timeout=self._timeout_s, metadata=self._access.metadata)
            figures.latencies.append(time.perf_counter() - due)
        except grpc.aio.AioRpcError as error:
            figures.failed(error.code().name, error.details() or "no text")
        bar.update()


def draw(figures: Figures, path: Path) -> None:
    """Write a histogram of the latencies as a picture.

    Raises:
        DigitserveError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ImportError:
        raise DigitserveError("matplotlib is not installed; run: pip install matplotlib, or leave out --plot") from None
    milliseconds = np.array(figures.latencies) * 1000
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(milliseconds, bins=[*np.geomspace(milliseconds.min(), milliseconds.max() * 1.01, 80)], color="#4878a8")
    for (percent, ms), dashes in zip(figures.percentiles().items(), ("-", "--", "-.", ":"), strict=True):
        axes.axvline(ms, color="#b04a4a", linestyle=dashes, label=f"{percent:g} % within {ms:.3g} ms")
    axes.legend(frameon=False)
    axes.set_title(f"{len(milliseconds):,} calls answered; {figures.asked}", loc="left")
    axes.set(xscale="log", xlabel="answered within, milliseconds", ylabel="calls")
    # Round numbers of milliseconds instead of powers of ten.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise DigitserveError(f"cannot write {path}: {error}") from None
