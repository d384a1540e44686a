"""What was aimed at, beside what was measured: mostly ratios of one run, which say more than figures do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.load.report import Figure

Figures = Mapping[str, Figure]


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
        over, empty = 0.6 if name == "native" else 1.8, f"{name}: raw image over an empty call"
        yield Target(f"{empty}, CPU", "x", most=over), _value(empty)
        if name == "native":
            raw = f"{name}: raw image, 32 in flight"
            yield Target(f"{name}: raw images with 32 in flight", "calls/s", least=15_000), _value(raw)
        png = f"{name}: PNG file over a raw image"
        yield Target(f"{png}, CPU", "us more", most=160), _value(png)
        for share, many in (
            (85, "ClassifyBatch, 512 raw images"),
            (92, "ModelInfer, 512 images"),
            (60, "ClassifyStream, raw images"),
        ):
            of_alone = f"{name}: {many}, of in process"
            yield Target(of_alone, "%", least=share), _value(of_alone)
        open_loop = f"{name}: its p99 over the median of a lone call"
        yield Target(f"{name}: p99 of the open loop", "x", most=4), _value(open_loop)
        beside, lone = f"{name}: the same beside batches of 512", f"{name}: lone caller, Python client"
        yield Target(f"{name}: lone caller beside batches of 512", "x", most=5), _times(beside, lone)
        two, one = f"{name}: 2 workers on cores of their own", f"{name}: 1 worker, load on another core"
        yield Target(f"{name}: 2 workers over 1", "x", least=1.8), _times(two, one)
        yield Target(f"{name}: memory", "MB", most=120), _value(f"{name}: resident memory after single images")
        start = f"{name}: start to first right answer"
        yield Target(start, "s", most=0.8), _value(start)


def _value(name: str) -> Callable[[Figures], float]:
    return lambda figures: figures[name].value


def _times(name: str, other: str) -> Callable[[Figures], float]:
    return lambda figures: figures[name].value / figures[other].value
