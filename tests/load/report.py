"""Figures as they come: a line each on the terminal, at the end a JSON file and a picture."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import matplotlib

from tests.load.h2 import Load

PACKAGES = ("digitserve", "grpcio", "numpy", "onnxruntime", "protobuf", "pygrpc-native")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Attributes:
        group: What it belongs to.
        name: What was measured.
        value: The figure.
        unit: Of the value.
        note: Its ratio to another figure, or the rest of its distribution.
    """

    group: str
    name: str
    value: float
    unit: str
    note: str


class Report:
    """Collects figures and prints each at once."""

    def __init__(self) -> None:
        """Start without any."""
        self._figures: list[Figure] = []
        self._loads: dict[str, tuple[Load, float | None]] = {}

    def add(self, group: str, name: str, value: float, unit: str, note: str = "") -> None:
        """Take a figure, and print it."""
        self._figures.append(Figure(group, name, value, unit, note))
        digits = 0 if value >= 1000 else 1 if value >= 10 else 2
        print(f"{name:48} {value:10,.{digits}f} {unit:9} {note}".rstrip(), flush=True)

    def calls(self, name: str, load: Load, cpu_us: float | None) -> None:
        """Take a load of single calls: calls a second, latencies, and CPU microseconds a call where known."""
        self._loads[name] = load, cpu_us
        cpu = "" if cpu_us is None else f"{cpu_us:7.1f} us CPU a call   "
        latencies = ", ".join(f"p{p:g} {load.percentile_ms(p):.2f}" for p in (50, 99, 99.9))
        self.add("calls", name, load.calls / load.seconds, "calls/s", f"{cpu}{latencies} ms")

    def write(self, folder: Path) -> list[Path]:
        """Write bench.json and bench.png; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        machine = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "packages": {name: version(name) for name in PACKAGES},
        }
        figures = folder / "bench.json"
        figures.write_text(json.dumps({"machine": machine, "figures": [asdict(f) for f in self._figures]}, indent=1))
        picture = folder / "bench.png"
        self._draw(picture)
        return [figures, picture]

    def _draw(self, path: Path) -> None:
        """CPU time of a call, and how long it takes, load by load."""
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        names = list(self._loads)
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.42 * len(names) + 1.6), sharey=True)
        left.barh(names, [cpu or 0 for _, cpu in self._loads.values()], color="#4878a8")
        left.set_xlabel("CPU of the server, microseconds a call")
        left.invert_yaxis()
        for percent, colour in ((50, "#4878a8"), (99, "#d08a3c"), (99.9, "#b04a4a")):
            values = [load.percentile_ms(percent) for load, _ in self._loads.values()]
            right.scatter(values, names, color=colour, label=f"{percent:g} % of calls", zorder=2)
        right.set_xscale("log")
        right.set_xlabel("answered within, milliseconds")
        right.grid(axis="x", alpha=0.3)
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=3, frameon=False)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(path, dpi=120)
        plt.close(figure)
