"""What was measured, as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tests.load.h2 import Load

BLUE, LIGHT_BLUE, ORANGE, RED, GREY = "#3b6ea5", "#8fb3d9", "#d08a3c", "#b04a4a", "#8a8a8a"
# By the beginning of a name, and by its end what is drawn dashed.
COLOURS = {
    "digitserve native": ORANGE,
    "digitserve grpcio": BLUE,
    "digitserve JSON": LIGHT_BLUE,
    "native": ORANGE,
    "grpcio": BLUE,
    "empty": GREY,
    "PNG": BLUE,
    "JPEG": ORANGE,
}
DASHED = ("99 %", "ModelInfer", "native call")


@dataclass(slots=True)
class Panel:
    """What a panel shows.

    Attributes:
        lines: Points by the name of their line.
        floors: What no line can go below.
    """

    lines: dict[str, list[tuple[Any, float]]] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)


Growth = dict[str, Panel]


@dataclass(frozen=True, slots=True)
class Look:
    """How a panel is labelled: its question, what its axes are, and which of them are logarithmic."""

    title: str
    x: str
    y: str
    log: str = "xy"


PANELS = {
    "in flight": Look("What does a call cost?", "calls in flight", "CPU microseconds a call"),
    "latency": Look("How long does a caller wait?", "calls in flight", "milliseconds"),
    "open loop": Look(
        "How long, if calls arrive at random?", "arrivals, % of the calls/s with 32 in flight", "milliseconds", "y"
    ),
    "batch": Look("What does an image in a batch cost?", "images in a call", "CPU microseconds an image"),
    "picture": Look("What does a picture cost?", "side of the picture, pixels", "CPU milliseconds a call"),
    "workers": Look("What does a second worker bring?", "", "calls a second", ""),
}


def draw_growth(growth: Mapping[str, Panel], path: Path) -> None:
    """A panel for each question; those without points are left out."""
    panels = [name for name in PANELS if name in growth and growth[name].lines]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 4.3 * rows), layout="constrained")
    for number, name in enumerate(panels, 1):
        axes, look, panel = figure.add_subplot(rows, columns, number), PANELS[name], growth[name]
        axes.set_title(look.title, loc="left", fontweight="bold")
        axes.set(xlabel=look.x, ylabel=look.y)
        if isinstance(next(iter(panel.lines.values()))[0][0], str):
            _bars(axes, panel)
        else:
            _lines(axes, panel, look)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        axes.legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)


def _lines(axes: Any, panel: Panel, look: Look) -> None:
    for name, points in panel.lines.items():
        xs, ys = zip(*points, strict=True)
        dashes = "--" if name.endswith(DASHED) else "-"
        axes.plot(xs, ys, marker="o", markersize=4, label=name, color=_colour(name), linestyle=dashes)
    for name, y in panel.floors.items():
        axes.axhline(y, color=GREY, linestyle="--", linewidth=1.2, label=f"floor: {name}")
    if "x" in look.log:
        axes.set_xscale("log", base=2)
        ticks = sorted({x for points in panel.lines.values() for x, _ in points})
        axes.set_xticks(ticks[:: 1 + len(ticks) // 9])
    if "y" in look.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _bars(axes: Any, panel: Panel) -> None:
    """A group of bars for each name on the horizontal axis, one of every line."""
    width = 0.8 / len(panel.lines)
    groups = list(dict.fromkeys(x for points in panel.lines.values() for x, _ in points))
    for number, ((name, points), colour) in enumerate(zip(panel.lines.items(), (GREY, BLUE, ORANGE), strict=False)):
        at = [groups.index(x) + (number - (len(panel.lines) - 1) / 2) * width for x, _ in points]
        bars = axes.bar(at, [y for _, y in points], width * 0.95, color=colour, label=name)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize="small")
    axes.set_xticks(range(len(groups)), groups)
    axes.margins(y=0.3)  # for the legend


def _colour(name: str) -> str:
    """Of what has this name: a transport has its own, wherever it is shown."""
    return next((colour for begin, colour in COLOURS.items() if name.startswith(begin)), RED)


def draw_calls(loads: Mapping[str, tuple[Load, float]], path: Path) -> None:
    """CPU time of a call, and how long it takes, load by load."""
    names = list(loads)
    figure = Figure(figsize=(12, 0.42 * len(names) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours = [_colour(name) for name in names]
    bars = left.barh(names, [cpu for _, cpu in loads.values()], color=colours)
    left.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize="small")
    left.margins(x=0.08)
    left.set_xlabel("CPU of the server, microseconds a call")
    left.invert_yaxis()
    for percent, marker in ((50, "o"), (99, "|"), (99.9, "x")):
        values = [load.percentile_ms(percent) for load, _ in loads.values()]
        right.scatter(values, names, color=colours, marker=marker, s=60, zorder=2)
        right.scatter([], [], color=GREY, marker=marker, s=60, label=f"{percent:g} % of calls")
    right.set_xscale("log")
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.set_xlabel("answered within, milliseconds")
    right.grid(axis="x", alpha=0.3)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=3, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
