"""What was aimed at, beside what was measured: mostly ratios of one run, which say more than figures do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.load.report import Figure

Figures = Mapping[str, Figure]
# Names of rows.
EMPTY = "empty grpc.aio call, 32 in flight"
ALONE = "ONNX Runtime in process, runs of 32"
START = "start to first right answer, median of 5"


@dataclass(frozen=True, slots=True)
class Target:
    """What is aimed at.

    Attributes:
        name: What is measured.
        unit: Of it.
        most: At most so much, or None.
        least: At least so much, or None.
    """

    name: str
    unit: str
    most: float | None = None
    least: float | None = None

    def verdict(self, value: float) -> str:
        """What was aimed at, and whether it was reached; nothing where nothing was."""
        if self.most is not None:
            return f"at most {self.most:g}: {'reached' if value <= self.most else 'MISSED'}"
        if self.least is not None:
            return f"at least {self.least:g}: {'reached' if value >= self.least else 'MISSED'}"
        return ""


def targets(transports: list[str]) -> Iterator[tuple[Target, Callable[[Figures], float]]]:
    """All of them, for servers with these transports.

    Returns:
        Each with what computes it from the figures by their names; a KeyError of that if one was not measured.
    """
    for name in transports:
        raw, png = f"{name}: raw image, 32 in flight", f"{name}: PNG file, 32 in flight"
        over = 0.6 if name == "native" else 1.8
        yield Target(f"{name}: raw image over an empty call, CPU", "x", most=over), _over(raw, EMPTY)
        if name == "native":
            yield Target(f"{name}: raw images with 32 in flight", "calls/s", least=15_000), _value(raw)
        yield Target(f"{name}: PNG file over a raw image, CPU", "us more", most=160), _more(png, raw)
        for share, many in (
            (85, "ClassifyBatch, 512 raw images"),
            (92, "ModelInfer, 512 images"),
            (60, "ClassifyStream, raw images"),
        ):
            yield Target(f"{name}: {many}, of in process", "%", least=share), _share(f"{name}: {many}")
        open_loop = f"{name}: its p99 over the median of a lone call"
        yield Target(f"{name}: p99 of the open loop", "x", most=4), _value(open_loop)
        beside, lone = f"{name}: the same beside batches of 512", f"{name}: lone caller, Python client"
        yield Target(f"{name}: lone caller beside batches of 512", "x", most=5), _times(beside, lone)
        two, one = f"{name}: 2 workers on cores of their own", f"{name}: 1 worker, load on another core"
        yield Target(f"{name}: 2 workers over 1, by CPU time", "x", least=1.8), _times(two, one)
        yield Target(f"{name}: memory", "MB", most=120), _value(f"{name}: resident memory after single images")
    yield Target("start to first right answer", "s", most=0.8), _value(START)


def _value(name: str) -> Callable[[Figures], float]:
    return lambda figures: figures[name].value


def _times(name: str, other: str) -> Callable[[Figures], float]:
    return lambda figures: figures[name].value / figures[other].value


def _over(name: str, other: str) -> Callable[[Figures], float]:
    return lambda figures: _cpu(figures, name) / _cpu(figures, other)


def _more(name: str, other: str) -> Callable[[Figures], float]:
    return lambda figures: _cpu(figures, name) - _cpu(figures, other)


def _share(name: str) -> Callable[[Figures], float]:
    return lambda figures: 100 * figures[ALONE].value / _cpu(figures, name)


def _cpu(figures: Figures, name: str) -> float:
    cpu_us = figures[name].cpu_us
    if cpu_us is None:
        raise KeyError(name)
    return cpu_us
