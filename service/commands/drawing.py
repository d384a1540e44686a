"""What pictures of an explanation are drawn with: a page of rows, pixels in colours, numbers in squares.

The same numbers give the same PNG file, whatever somebody's matplotlibrc says.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

Array = npt.NDArray[Any]

INK, FAINT, RULE = "#1f2933", "#6b7785", "#dfe3e8"
# For and against; told apart by the colour-blind, too.
BLUE, ORANGE, YELLOW, PALE = "#2f6db5", "#d9702b", "#ffd23f", "#b8c4d3"
INKS, SIGNED, ACTIVATIONS = "gray", "RdBu", "viridis"
DOTS_PER_INCH = 150
WIDTH, MARGIN = 10.0, 0.3
INNER = WIDTH - 2 * MARGIN
TITLE, NOTE, GAP = 0.3, 0.24, 0.3
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a file may have dollars in its name
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


class Area:
    """A part of the page; places in it are in inches from its top left corner."""

    def __init__(self, figure: Figure, top: float):
        """Begin `top` inches below the upper edge of the page."""
        self._figure = figure
        self._top = top

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Somewhere to draw."""
        page_width, page_height = self._figure.get_size_inches()
        bottom = page_height - self._top - top - height
        return self._figure.add_axes(
            ((MARGIN + left) / page_width, bottom / page_height, width / page_width, height / page_height)
        )

    def text(self, left: float, top: float, words: str, **style: Any) -> None:
        """Write; the words' upper left corner is there, unless the style says otherwise."""
        page_width, page_height = self._figure.get_size_inches()
        place = (MARGIN + left) / page_width, (page_height - self._top - top) / page_height
        self._figure.text(*place, words, **{"va": "top", "ha": "left"} | style)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a page.

    Attributes:
        title: Above it, in bold.
        notes: Lines below the title.
        height: Of what is drawn, in inches.
        draw: Draws it.
    """

    title: str
    notes: Sequence[str]
    height: float
    draw: Callable[[Area], None]


def page(rows: Sequence[Row]) -> bytes:
    """Draw rows below each other; returns a PNG file."""
    heights = [TITLE + NOTE * len(row.notes) + row.height + GAP for row in rows]
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = Figure(figsize=(WIDTH, sum(heights) + MARGIN), dpi=DOTS_PER_INCH)
        top = MARGIN
        for row, height in zip(rows, heights, strict=True):
            head = Area(figure, top)
            head.text(0, 0, row.title, fontsize=11, fontweight="bold")
            for line, note in enumerate(row.notes):
                head.text(0, TITLE + NOTE * line - 0.05, note, color=FAINT)
            row.draw(Area(figure, top + TITLE + NOTE * len(row.notes)))
            top += height
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return file.getvalue()


def pixels(axes: Axes, values: Array, colours: str, largest: float | None = None) -> None:
    """Draw numbers as squares of colour, without blur; white where there are none.

    Args:
        axes: Where; it gets no scales.
        values: (rows, columns), or (rows, columns, 3) for colours as they are.
        colours: `INKS`, `SIGNED` or `ACTIVATIONS`.
        largest: The number of the strongest colour; that of the values if None.
    """
    top = float(np.nanmax(np.abs(values))) if largest is None else largest
    bottom = -top if colours == SIGNED else 0
    axes.imshow(values, cmap=colours, vmin=bottom, vmax=max(top, 1e-9), interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def tiles(maps: Array, columns: int) -> Array:
    """Maps (N, rows, columns) beside and below each other, a pixel apart."""
    count, height, width = maps.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for index, each in enumerate(maps):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        sheet[top : top + height, left : left + width] = each
    return sheet


def columns_of(maps: Array) -> int:
    """How many maps (N, rows, columns) stand side by side."""
    return min(len(maps), 32 if maps.shape[2] < 6 else 16)


def tiles_height(shape: tuple[int, ...], columns: int) -> float:
    """Inches that tiles of maps of this shape (N, rows, columns) take at full width."""
    count, height, width = shape
    rows = -(-count // columns)
    return INNER * (rows * (height + 1) - 1) / (columns * (width + 1) - 1)


def numbers(axes: Axes, values: Array, colours: str, form: str, largest: float | None = None) -> None:
    """Draw numbers as squares of colour with the number in each."""
    pixels(axes, values, colours, largest)
    axes.spines[:].set(visible=True, linewidth=0.4)
    image = axes.images[0]
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = image.to_rgba(value)
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.55
        axes.text(
            column, row, written(value, form), ha="center", va="center", fontsize=6.8, color="white" if dark else INK
        )


def written(value: float, form: str = "{:.2f}") -> str:
    """A number as people write it: with a minus that is as wide as a plus, and none before a zero."""
    words = form.format(value)
    return words.replace("-", "\N{MINUS SIGN}") if words.strip("-0.,") else words.lstrip("-")


def frame(axes: Axes, row: float, column: float, height: float, width: float, colour: str = YELLOW) -> None:
    """Mark a rectangle of pixels."""
    place = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(place, width, height, fill=False, edgecolor=colour, linewidth=1.8, clip_on=False))


def by(*sizes: int) -> str:
    """Sizes in words."""
    return " × ".join(map(str, sizes))


def bars(axes: Axes, values: Array, labels: Sequence[str], marked: int) -> None:
    """Draw upright bars, one of them marked."""
    places = range(len(values))
    axes.bar(places, values, color=[BLUE if place == marked else PALE for place in places])
    axes.set_xticks(places, labels)
    axes.tick_params(length=0)
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
