"""Figures as they come: a line each on the terminal, at the end a JSON file and pictures."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.load import plots
from tests.load.h2 import Load

PACKAGES = ("digitserve", "grpcio", "numpy", "onnxruntime", "protobuf", "pygrpc-native")
# Other programs that want a core on average, above which what is measured is not what the machine can do.
BUSY = 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Attributes:
        group: What it belongs to.
        name: What was measured.
        value: The figure.
        unit: Of the value.
        note: Its ratio to another figure, or the rest of its distribution.
        cpu_us: Microseconds of the server's CPU time for a call, or for an image of a batch, where known.
        latencies_ms: Milliseconds by percentile, where known.
    """

    group: str
    name: str
    value: float
    unit: str
    note: str = ""
    cpu_us: float | None = None
    latencies_ms: Mapping[str, float] | None = None


class Report:
    """Collects figures and prints each at once."""

    def __init__(self) -> None:
        """Start without any; says so if the machine has other things to do."""
        self._figures: list[Figure] = []
        self._lines: list[str] = []
        self._failed: dict[str, str] = {}
        self._loads: dict[str, tuple[Load, float]] = {}
        self._growth: plots.Growth = {}
        self._load_average = os.getloadavg()[0]
        if self._load_average > BUSY:
            print(
                f"load average {self._load_average:.1f}: this machine is busy, so read ratios, not figures", flush=True
            )

    def add(
        self, group: str, name: str, value: float, unit: str, note: str = "", *, cpu_us: float | None = None
    ) -> None:
        """Take a figure, and print it."""
        self._take(Figure(group, name, value, unit, note, cpu_us))

    def _take(self, figure: Figure) -> None:
        self._figures.append(figure)
        digits = 0 if abs(figure.value) >= 1000 else 1 if abs(figure.value) >= 10 else 2
        self._print(f"{figure.name:48} {figure.value:10,.{digits}f} {figure.unit:9} {figure.note}".rstrip())

    @property
    def figures(self) -> dict[str, Figure]:
        """Those taken so far, by name."""
        return {figure.name: figure for figure in self._figures}

    def calls(self, name: str, load: Load, cpu_us: float) -> None:
        """Take a load of single calls: calls a second, latencies, and CPU microseconds a call."""
        self._loads[name] = load, cpu_us
        latencies = {f"p{p:g}": load.percentile_ms(p) for p in (50, 99, 99.9)}
        times = ", ".join(f"{percent} {ms:.2f}" for percent, ms in latencies.items())
        note = f"{cpu_us:7.1f} us CPU a call   {times} ms"
        self._take(Figure("calls", name, load.calls / load.seconds, "calls/s", note, cpu_us, latencies))

    def point(self, panel: str, line: str, x: float | str, y: float) -> None:
        """Take a point of a line in a panel of the picture of growth; see `plots.PANELS`."""
        self._growth.setdefault(panel, plots.Panel()).lines.setdefault(line, []).append((x, y))

    def floor(self, panel: str, name: str, y: float) -> None:
        """Take what no line of a panel can go below."""
        self._growth.setdefault(panel, plots.Panel()).floors[name] = y

    @contextlib.contextmanager
    def row(self, name: str) -> Iterator[None]:
        """What is measured in here may fail, which is reported and keeps nothing else from being measured."""
        try:
            yield
        except Exception as error:
            self._failed[name] = f"{type(error).__name__}: {error}"
            self._print(f"{name:48} FAILED  {self._failed[name]}")

    def write(self, folder: Path, name: str = "bench") -> list[Path]:
        """Write NAME.json, what was printed as NAME.txt, NAME.png of the calls, and NAME-growth.png of curves, if any.

        Returns:
            Their paths.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (figures := folder / f"{name}.json").write_text(json.dumps(self._content(), indent=1))
        (lines := folder / f"{name}.txt").write_text("\n".join(self._lines) + "\n")
        written = [figures, lines]
        if self._loads:
            plots.draw_calls(self._loads, path := folder / f"{name}.png")
            written.append(path)
        if self._growth:
            plots.draw_growth(self._growth, path := folder / f"{name}-growth.png")
            written.append(path)
        return written

    def _print(self, line: str) -> None:
        self._lines.append(line)
        print(line, flush=True)

    def _content(self) -> dict[str, object]:
        """All of it, for JSON."""
        machine = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load_average_before": self._load_average,
            "python": platform.python_version(),
            "packages": dict(_versions()),
        }
        return {
            "machine": machine,
            "figures": [asdict(figure) for figure in self._figures],
            "growth": {panel: asdict(content) for panel, content in self._growth.items()},
            "failed": self._failed,
        }


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)
