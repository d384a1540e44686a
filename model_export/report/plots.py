"""The plots of the model card: arrays in, a PNG file's bytes out. The same arrays give the same bytes.

Knows matplotlib and numpy only. No pyplot and so no window, and nobody's matplotlibrc: one style for all plots, made
for the 830 pixels that GitHub gives a page, at twice the resolution.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

Floats = npt.NDArray[np.floating[Any]]
Counts = npt.NDArray[np.int64]

INK, FAINT, RULE = "#1f2933", "#7b8794", "#dfe3e8"
BLUE, ORANGE = "#2f6db5", "#d9702b"  # right and wrong, digits and the rest; told apart by the colour-blind too
WIDTH_INCHES, DOTS_PER_INCH = 8.3, 200
MOST_MISREAD = 300
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.edgecolor": "white",
    "figure.dpi": DOTS_PER_INCH,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}


def confusion_matrix(counts: Counts) -> bytes:
    """Draw how many images of each digit (row) were read as which digit (column), int64 [10, 10]."""
    with matplotlib.style.context(STYLE, after_reset=True):
        figure, axes = _plot(4.8, "What was shown, and what was read")
        wrong = counts - np.diag(np.diag(counts))
        strongest = max(1.6 * wrong.max(), 1.0)  # pale enough to read the number on it
        axes.imshow(np.ma.masked_equal(wrong, 0), cmap="Oranges", vmin=0, vmax=strongest, aspect="auto")
        for (row, column), count in np.ndenumerate(counts):
            if row == column:
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="#e3edf8", linewidth=0))
            words, color = (f"{count:,}", INK) if count else ("·", FAINT)
            weight = "bold" if row != column and count else "normal"
            axes.text(column, row, words, color=color, weight=weight, ha="center", va="center")
        digits = range(len(counts))
        axes.set(xticks=digits, yticks=digits, xlabel="digit that was read", ylabel="digit that was shown")
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return _png(figure)


def misread_images(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], probabilities: Floats) -> bytes:
    """Draw misread images as ink on paper, each with its label and the model's first two guesses.

    Args:
        images: uint8 [N, 28, 28], 0 paper to 255 ink, in the order to show; of more than 300 the first 300 are drawn.
        labels: uint8 [N].
        probabilities: float [N, 10].
    """
    shown = min(len(images), MOST_MISREAD)
    columns, step_x, step_y, text = 8, 1.12, 1.62, 0.42  # in widths of an image
    rows = max(1, -(-shown // columns))
    with matplotlib.style.context(STYLE, after_reset=True):
        part = "" if shown == len(images) else f" (the first {shown})"
        inches = WIDTH_INCHES / (columns * step_x) * rows * step_y
        figure, axes = _plot(inches + 0.4, f"All {len(images):,} misread test images, the surest mistake first{part}")
        for index in range(shown):
            row, column = divmod(index, columns)
            left, top = column * step_x, row * step_y
            box = (left, left + 1, top + text + 1, top + text)
            axes.imshow(images[index], cmap="gray_r", vmin=0, vmax=255, extent=box, interpolation="nearest")
            axes.add_patch(Rectangle((left, top + text), 1, 1, fill=False, edgecolor=RULE, linewidth=0.8))
            first, second = np.argsort(-probabilities[index], kind="stable")[:2]
            axes.text(left, top + 0.16, f"shows {labels[index]}", fontsize=8, weight="bold")
            for digit, color, place, alignment in ((first, ORANGE, 0, "left"), (second, FAINT, 1, "right")):
                words = f"{digit}: {_percent(probabilities[index, digit])}"
                axes.text(left + place, top + 0.35, words, color=color, fontsize=7.5, ha=alignment)
        axes.set(xlim=(-0.02, columns * step_x - 0.1), ylim=(rows * step_y - 0.15, 0), aspect="equal")
        axes.set_axis_off()
        return _png(figure)


def reliability_diagram(count: Counts, confidence: Floats, accuracy: Floats, error: float) -> bytes:
    """Draw accuracy against confidence, and how many images are behind each point.

    Args:
        count: int64 [B], the images in each of B equal bins of confidence.
        confidence: float [B], their mean confidence, 0 to 1.
        accuracy: float [B], the share of right answers, 0 to 1.
        error: The expected calibration error, 0 to 1.
    """
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = Figure(figsize=(WIDTH_INCHES, 5.2))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        upper.set_title(f"Is it as sure as it is right?  Expected calibration error {error:.2%}")
        edges = np.linspace(0, 1, len(count) + 1)
        filled = count > 0
        share = accuracy[filled]
        chance = np.sqrt(confidence[filled] * (1 - confidence[filled]) / count[filled])
        upper.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1, label="as sure as right")
        upper.errorbar(
            confidence[filled],
            share,
            yerr=[np.minimum(chance, share), np.minimum(chance, 1 - share)],
            fmt="o",
            color=BLUE,
            markersize=6,
            elinewidth=1,
            clip_on=False,
            label="the model (bars: one standard error of so many images)",
        )
        upper.set(ylabel="share read rightly", ylim=(-0.03, 1.03), xlim=(0, 1))
        upper.legend(loc="lower right")
        upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        lower.bar(edges[:-1], count, width=np.diff(edges), align="edge", color=BLUE, alpha=0.75, edgecolor="white")
        lower.set(yscale="log", ylim=(0.7, max(2.0, 2.0 * count.max())), ylabel="images", xlabel="confidence")
        lower.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return _png(figure)


def score_histograms(digits: Floats, rest: Mapping[str, Floats], threshold: float) -> bytes:
    """Draw the digit scores of digits above those of each kind of non-digits, and where the model rejects.

    Args:
        digits: float [N], the scores of digits.
        rest: For each kind of non-digits its scores, float [M].
        threshold: Scores below it are rejected.
    """
    everything = np.concatenate([digits, *rest.values()])
    bins = np.linspace(everything.min(), everything.max(), 81)
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = Figure(figsize=(WIDTH_INCHES, 1.6 + 0.55 * (1 + len(rest))))
        rows: list[Axes] = list(figure.subplots(1 + len(rest), 1, sharex=True, squeeze=False)[:, 0])
        rows[0].set_title("Does it look like a digit at all?")
        for axes, (kind, scores) in zip(rows, [("digits", digits), *rest.items()], strict=True):
            color = BLUE if axes is rows[0] else ORANGE
            share = np.histogram(scores, bins)[0] / len(scores)
            axes.stairs(share / share.max(), bins, fill=True, color=color, alpha=0.8)
            axes.axvline(threshold, color=INK, linestyle="--", linewidth=1)
            axes.set_ylabel(kind, rotation=0, ha="right", va="center")
            axes.text(
                1.01,
                0.5,
                f"{(scores < threshold).mean():.1%}\nrejected",
                transform=axes.transAxes,
                va="center",
                fontsize=8,
            )
            axes.set(yticks=[], ylim=(0, 1.1))
            axes.spines["left"].set_visible(False)
        rows[0].annotate(
            "rejected below", (threshold, 1.0), (-5, 0), textcoords="offset points", ha="right", va="top", fontsize=8
        )
        rows[-1].set_xlabel("digit score" + (" (each row drawn to its own height)" if rest else ""))
        return _png(figure)


def first_layer_filters(weights: Floats) -> bytes:
    """Draw the kernels of the first convolution, float [C, H, W], each on its own scale around 0."""
    columns, step = 16, 1.14  # in widths of a filter
    rows = -(-len(weights) // columns)
    title = f"The {len(weights)} filters of the first layer: blue asks for ink, red for paper"
    with matplotlib.style.context(STYLE, after_reset=True):
        figure, axes = _plot(0.4 + rows * WIDTH_INCHES / columns, title)
        for index, kernel in enumerate(weights):
            row, column = divmod(index, columns)
            limit = np.abs(kernel).max()
            box = (column * step, column * step + 1, row * step + 1, row * step)
            axes.imshow(kernel, cmap="RdBu", vmin=-limit, vmax=limit, extent=box, interpolation="nearest")
        axes.set(xlim=(-0.02, columns * step), ylim=(rows * step, -0.02), aspect="equal")
        axes.set_axis_off()
        return _png(figure)


def training_curves(history: Floats, chosen_epoch: int) -> bytes:
    """Draw losses and validation errors over the epochs.

    Args:
        history: float [E, 3]: training loss, validation loss, validation accuracy from 0 to 1, a row an epoch.
        chosen_epoch: The epoch whose weights were kept.
    """
    training_loss, validation_loss, accuracy = history.T
    epochs = np.arange(1, len(history) + 1)
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = Figure(figsize=(WIDTH_INCHES, 3.6))
        left, right = figure.subplots(1, 2)
        left.plot(epochs, training_loss, color=FAINT, label="training")
        left.plot(epochs, validation_loss, color=BLUE, label="validation")
        left.set_title("Loss")
        left.legend(loc="upper right")
        right.plot(epochs, np.maximum(1 - accuracy, 1e-4), color=BLUE)  # there is no 0 on a logarithmic scale
        right.set_title("Misread validation images")
        for axes, ticks in ((left, "{x:g}"), (right, FuncFormatter(lambda share, _: f"{100 * share:g}%"))):
            axes.set(xlabel="epoch", yscale="log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(ticks)
            axes.yaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.axvline(chosen_epoch, color=ORANGE, linestyle="--", linewidth=1)
        right.annotate(
            f"epoch {chosen_epoch} is kept",
            (chosen_epoch, 0.97),
            (-5, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            va="top",
            color=ORANGE,
            fontsize=8,
        )
        return _png(figure)


def _plot(height_inches: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, height_inches))
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _percent(probability: float) -> str:
    """Round to whole percents, but neither to certain nor to impossible."""
    if probability > 0.995:
        return ">99%"
    return f"{probability:.0%}" if probability >= 0.005 else "<1%"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # which would name matplotlib's version
    return buffer.getvalue()
