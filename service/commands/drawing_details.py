"""One step of the network at a time, with its numbers: a convolution, ReLU, pooling, the last layer, softmax."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np

from service.client.client_explanation import Explanation, Layer
from service.commands.drawing import (
    ACTIVATIONS,
    BLUE,
    FAINT,
    INKS,
    INNER,
    ORANGE,
    PALE,
    SIGNED,
    Area,
    Row,
    by,
    frame,
    numbers,
    pixels,
    written,
)
from service.commands.drawing_flow import occlusion, steps


def step_rows(explained: Explanation) -> list[Row]:
    """From the picture to what the network sees, with a sentence for each step."""
    lines = [
        line
        for step in explained.steps
        for line in textwrap.wrap(f"{step.name}: {step.caption}", 130, subsequent_indent="    ")
    ]
    return [Row("From the picture to what the network sees", lines, 1.5, steps(explained))]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the first convolution finds most: a filter, and a place of its window."""

    channel: int
    row: int
    column: int


def strongest(layer: Layer) -> Spot:
    """The largest number that came out of a convolution."""
    channel, row, column = np.unravel_index(int(layer.output.argmax()), layer.output.shape)
    return Spot(int(channel), int(row), int(column))


def convolution_rows(explained: Explanation) -> list[Row]:
    """The first convolution at one place, with all its products."""
    layer = explained.layers[0]
    if layer.kind != "conv" or layer.weights is None or layer.biases is None:
        return []
    spot = strongest(layer)
    height, width = layer.kernel
    top, left = spot.row * layer.stride[0], spot.column * layer.stride[1]
    image = np.pad(explained.seen / 255, [(layer.padding[0], layer.padding[2]), (layer.padding[1], layer.padding[3])])
    patch = image[top : top + height, left : left + width]
    kernel = layer.weights[spot.channel, 0].astype(np.float64)
    products = patch * kernel
    bias, found = float(layer.biases[spot.channel]), float(layer.output[spot.channel, spot.row, spot.column])

    def draw(area: Area) -> None:
        side, small = 1.95, 1.6
        places = np.cumsum([0, side, small, small, small]) + 0.19 * np.arange(5)
        middle = (side - small) / 2
        whole = area.axes(places[0], 0, side, side)
        pixels(whole, image, INKS, 1.0)
        frame(whole, top, left, height, width)
        for place, values, colours, words in (
            (places[1], patch, INKS, "the pixels under it, 0 to 1"),
            (places[2], kernel, SIGNED, f"filter {spot.channel + 1} of {len(layer.output)}"),
            (places[3], products, SIGNED, "their products"),
        ):
            numbers(area.axes(place, middle, small, small), values, colours, "{:.2f}", 1.0 if colours == INKS else None)
            area.text(place + small / 2, side + 0.08, words, ha="center")
        for place, sign in ((places[2], "×"), (places[3], "="), (places[4], "→")):
            area.text(place - 0.095, side / 2, sign, ha="center", va="center", fontsize=14)
        feature = area.axes(places[4], 0, side, side)
        pixels(feature, layer.output[spot.channel], SIGNED)
        frame(feature, spot.row, spot.column, 1, 1)
        area.text(places[0] + side / 2, side + 0.08, "what the network sees", ha="center")
        area.text(places[4] + side / 2, side + 0.08, "the filter's feature map", ha="center")
        total = f"sum of the products {written(products.sum())}, and the bias {written(bias)}: {written(found)}"
        area.text(places[3] + small / 2, side + 0.36, total, ha="center", fontweight="bold")

    moves = f"The window of {by(height, width)} moves by {layer.stride[0]} and finds {layer.output[0].size} numbers"
    return [Row(f"{layer.name}: a filter at one place", [f"{moves}; this is the largest."], 2.5, draw)]


def relu_rows(explained: Explanation) -> list[Row]:
    """What ReLU does to one feature map."""
    before, after = explained.layers[:2]
    if after.kind != "relu" or before.output.ndim != 3:
        return []
    channel = strongest(before).channel
    values, kept = before.output[channel], after.output[channel]
    largest = float(np.abs(values).max())

    def draw(area: Area) -> None:
        side = 2.2
        pixels(area.axes(0, 0, side, side), values, SIGNED, largest)
        curve = area.axes(side + 0.7, 0.1, side - 0.2, side - 0.5)
        reach = np.array([-largest, 0, largest])
        curve.plot(reach, np.maximum(reach, 0), color=BLUE, linewidth=2)
        curve.set(xlabel="before", ylabel="after")
        curve.spines[["top", "right"]].set_visible(False)
        pixels(area.axes(2 * side + 1.0, 0, side, side), kept, SIGNED, largest)
        area.text(side / 2, side + 0.08, f"{before.name}: blue above 0, red below", ha="center")
        area.text(2.5 * side + 1.0, side + 0.08, f"{after.name}: what is above 0", ha="center")

    share = f"{(values <= 0).mean():.0%} of this map's {values.size} numbers were below 0 and are 0 now."
    return [Row(f"{after.name}: what is below 0 becomes 0", [share], 2.5, draw)]


def pooling_rows(explained: Explanation) -> list[Row]:
    """The first pooling, on a part of one feature map."""
    found = [index for index, layer in enumerate(explained.layers) if layer.kind == "max_pool"]
    if not found or any(explained.layers[found[0]].padding):
        return []
    before, after = explained.layers[found[0] - 1], explained.layers[found[0]]
    spot = strongest(after)
    values, kept = before.output[spot.channel], after.output[spot.channel]
    # Three windows a side, with the strongest among them.
    rows, columns = (min(3, length) for length in kept.shape)
    row = min(max(spot.row - 1, 0), kept.shape[0] - rows)
    column = min(max(spot.column - 1, 0), kept.shape[1] - columns)
    top, left = row * after.stride[0], column * after.stride[1]
    height = (rows - 1) * after.stride[0] + after.kernel[0]
    width = (columns - 1) * after.stride[1] + after.kernel[1]
    part, small = values[top : top + height, left : left + width], kept[row : row + rows, column : column + columns]
    largest = float(values.max())

    def draw(area: Area) -> None:
        side = 2.1
        place = (INNER - 4 * side) / 3 + side
        whole = area.axes(0, 0, side, side)
        pixels(whole, values, ACTIVATIONS, largest)
        frame(whole, top, left, height, width)
        close = area.axes(place, 0, side, side)
        numbers(close, part, ACTIVATIONS, "{:.1f}", largest)
        for (down, across), value in np.ndenumerate(small):
            first_row, first_column = down * after.stride[0], across * after.stride[1]
            window = part[first_row:, first_column:][: after.kernel[0], : after.kernel[1]]
            frame(close, first_row, first_column, after.kernel[0], after.kernel[1], "white")
            if value > 0:
                hit_row, hit_column = np.unravel_index(int(window.argmax()), window.shape)
                frame(close, first_row + float(hit_row), first_column + float(hit_column), 1, 1)
        numbers(area.axes(2 * place, 0, side, side), small, ACTIVATIONS, "{:.1f}", largest)
        pooled = area.axes(3 * place, 0, side, side)
        pixels(pooled, kept, ACTIVATIONS, largest)
        frame(pooled, row, column, rows, columns)
        for index, words in enumerate(
            (
                f"{before.name}: {by(*values.shape)}",
                "a part of it",
                "the largest of each window",
                f"{after.name}: {by(*kept.shape)}",
            )
        ):
            area.text(index * place + side / 2, side + 0.08, words, ha="center")

    title = f"{after.name}: of every {by(*after.kernel)}, the largest stays"
    note = "Where in the window it was is forgotten: a digit that is a little elsewhere looks the same from here on."
    return [Row(title, [note], 2.4, draw)]


def linear_rows(explained: Explanation) -> list[Row]:
    """What spoke for and against the answer in the last linear layer."""
    inputs, layer = explained.layers[-3].output, explained.layers[-2]
    digit = explained.prediction.digit
    if layer.weights is None or layer.biases is None:
        return []
    parts = inputs * layer.weights[digit]
    most = np.argsort(-np.abs(parts), kind="stable")[:24]
    most = most[np.argsort(-parts[most], kind="stable")]

    def draw(area: Area) -> None:
        axes = area.axes(0.4, 0.1, INNER - 0.4, 1.9)
        axes.bar(range(len(most)), parts[most], color=[BLUE if part > 0 else ORANGE for part in parts[most]])
        axes.set_xticks(range(len(most)), [str(unit) for unit in most])
        axes.set(xlabel=f"unit of {explained.layers[-3].name}", ylabel="its number × its weight")
        axes.axhline(0, color=FAINT, linewidth=0.6)
        axes.tick_params(length=0)
        axes.spines[["top", "right", "bottom"]].set_visible(False)

    above, below = float(parts[parts > 0].sum()), float(parts[parts < 0].sum())
    total = (
        f"{written(above)} in favour, {written(below)} against, and the bias {written(float(layer.biases[digit]))}: "
        f"the logit {written(explained.logits[digit])}"
    )
    title = f"{layer.name}: what spoke for the {digit}, and what against it"
    return [Row(title, [f"{total}. Shown are the {len(most)} of {len(parts)} units that say most."], 2.5, draw)]


def softmax_rows(explained: Explanation) -> list[Row]:
    """From logits to probabilities, digit by digit."""
    logits = np.array(explained.logits[:10])
    scaled = logits / explained.temperature
    powers = np.exp(scaled)
    found = explained.prediction

    def draw(area: Area) -> None:
        columns = (0.5, 1.7, 3.1, 4.9)
        heads = ("digit", "logit", f"/ {explained.temperature:.3f}", "e to the power of it")
        for place, words in zip(columns, heads, strict=True):
            area.text(place, 0, words, ha="right", color=FAINT)
        area.text(5.2, 0, f"divided by the sum of all ten, {powers.sum():,.1f}: the probability", color=FAINT)
        for digit in range(10):
            line = 0.3 + 0.22 * digit
            weight = "bold" if digit == found.digit else "normal"
            cells = (str(digit), written(logits[digit]), written(scaled[digit]), f"{powers[digit]:,.3f}")
            for place, cell in zip(columns, cells, strict=True):
                area.text(place, line, cell, ha="right", fontweight=weight)
        axes = area.axes(5.2, 0.26, 3.4, 2.2)
        axes.barh(range(10), found.probabilities, color=[BLUE if d == found.digit else PALE for d in range(10)])
        axes.set(xlim=(0, 1), ylim=(9.5, -0.5))
        axes.set_axis_off()
        for digit, probability in enumerate(found.probabilities):
            axes.text(probability + 0.02, digit, f"{probability:.2%}", va="center")

    note = "The temperature is chosen after training, so that of all answers that are 90 % sure nine in ten are right."
    return [Row("softmax: ten numbers become ten probabilities", [note], 2.5, draw)]


def occlusion_rows(explained: Explanation) -> list[Row]:
    """Which pixels the answer hangs on."""

    def draw(area: Area) -> None:
        side = 2.6
        seen = area.axes(0, 0, side, side)
        pixels(seen, explained.seen, INKS, 255)
        row, column = np.unravel_index(int(explained.falls.argmax()), explained.falls.shape)
        place = int(row) * explained.stride, int(column) * explained.stride
        frame(seen, *place, explained.patch, explained.patch)
        covered = explained.seen.copy()
        covered[place[0] :, place[1] :][: explained.patch, : explained.patch] = 0
        hidden = area.axes(side + 0.5, 0, side, side)
        pixels(hidden, covered, INKS, 255)
        frame(hidden, *place, explained.patch, explained.patch)
        occlusion(area.axes(2 * side + 1.0, 0, side, side), explained)
        found = explained.prediction
        left = found.confidence - float(explained.falls.max())
        for index, words in enumerate(
            (
                f"the {found.digit} has {found.confidence:.1%}",
                f"covered here, the {found.digit} has {left:.1%}",
                "all places at once",
            )
        ):
            area.text(index * (side + 0.5) + side / 2, side + 0.08, words, ha="center")

    note = (
        f"A square of {by(explained.patch, explained.patch)} pixels is covered with paper, in steps of "
        f"{explained.stride}, and the network is asked again each time."
    )
    return [Row("Which pixels count", [note], 2.9, draw)]
