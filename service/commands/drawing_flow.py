"""The way of an image through the whole network, as one picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise

import matplotlib.colors
import matplotlib.image
import numpy as np
from matplotlib.axes import Axes

from service.client.client_explanation import Explanation, Floats, Layer
from service.commands.drawing import (
    ACTIVATIONS,
    FAINT,
    INKS,
    INNER,
    ORANGE,
    SIGNED,
    Area,
    Row,
    bars,
    by,
    columns_of,
    pixels,
    tiles,
    tiles_height,
)

THUMBNAIL = 1.0


def flow(explained: Explanation, name: str) -> list[Row]:
    """Every layer, from the picture to the answer.

    Args:
        explained: What to draw.
        name: Of the picture.
    """
    layers = explained.layers
    rows = [Row(f"{name}: {verdict(explained)}", ["From the picture to what the network sees"], 1.4, steps(explained))]
    shape: tuple[int, ...] = (1, *explained.seen.shape)
    for layer, following in pairwise(layers):
        if layer.kind in ("conv", "linear") and following.kind != "softmax":
            rows.append(_weighted(layer, following, shape))
        elif layer.kind == "max_pool":
            rows.append(_pooled(layer))
        elif layer.kind == "flatten":
            rows.append(_flattened(layer, shape))
        shape = layer.output.shape
    return [*rows, _answer(explained)]


def verdict(explained: Explanation) -> str:
    """The answer in words."""
    found = explained.prediction
    doubt = f"; not to be trusted: {found.rejection_reason}" if found.rejected else ""
    article = "an" if found.digit == 8 else "a"
    # Nothing is 100 % sure.
    sure = f"{found.confidence:.1%}" if found.confidence < 0.9995 else "more than 99.9%"
    return f"{article} {found.digit}, {sure} sure{doubt}"


def steps(explained: Explanation) -> Callable[[Area], None]:
    """The steps side by side."""

    def draw(area: Area) -> None:
        height = THUMBNAIL
        place = INNER / max(len(explained.steps), 8)
        for index, step in enumerate(explained.steps):
            picture = matplotlib.image.imread(io.BytesIO(step.png), format="png")
            scale = min((place - 0.2) / picture.shape[1], height / picture.shape[0])
            size = picture.shape[1] * scale, picture.shape[0] * scale
            axes = area.axes(index * place, (height - size[1]) / 2, *size)
            pixels(axes, picture, INKS, 1.0)
            axes.spines[:].set(visible=True, linewidth=0.4)
            area.text(index * place + size[0] / 2, height + 0.08, step.name, ha="center")
            if index:
                area.text(index * place - 0.1, height / 2, "→", ha="center", va="center", color=FAINT, fontsize=14)

    return draw


def _weighted(layer: Layer, following: Layer, shape: tuple[int, ...]) -> Row:
    """A convolution or a linear layer, and what ReLU left of it."""
    is_cut = following.kind == "relu"
    values = following.output if is_cut else layer.output
    relu = "; ReLU keeps what is above 0" if is_cut else ""
    if layer.kind == "linear":
        units, inputs = len(values), shape[0]
        title = f"{layer.name}: {units} units, each with a weight for every one of the {inputs} numbers{relu}"
        return Row(title, [_count(layer)], 0.25, lambda area: _strip(area, values, 1))
    columns = columns_of(values)
    height = tiles_height(values.shape, columns)
    kernels = layer.weights[:, 0] if layer.weights is not None and shape[0] == 1 else None
    kernels_height = 0.0 if kernels is None else tiles_height(kernels.shape, columns) + 0.08

    def draw(area: Area) -> None:
        if kernels is not None:
            pixels(area.axes(0, 0, INNER, kernels_height - 0.08), tiles(each_scaled(kernels), columns), SIGNED)
        pixels(area.axes(0, kernels_height, INNER, height), tiles(values, columns), ACTIVATIONS)

    rows, wide = layer.kernel
    title = f"{layer.name}: {len(values)} filters of {by(shape[0], rows, wide)} slide over {by(*shape)}{relu}"
    return Row(title, [f"{_count(layer)}{_shown(kernels)}"], kernels_height + height, draw)


def each_scaled(kernels: Floats) -> Floats:
    """Kernels (N, rows, columns), the largest number of each being 1 or -1."""
    return np.asarray(kernels / np.maximum(np.abs(kernels).max((1, 2), keepdims=True), 1e-9))


def _shown(kernels: Floats | None) -> str:
    return "" if kernels is None else ". Above, the filters (blue is positive, red negative); below, what each finds"


def _pooled(layer: Layer) -> Row:
    columns = columns_of(layer.output)
    height = tiles_height(layer.output.shape, columns)
    title = f"{layer.name}: the largest of every {by(*layer.kernel)}, to {by(*layer.output.shape)}"
    return Row(
        title,
        [],
        height,
        lambda area: pixels(area.axes(0, 0, INNER, height), tiles(layer.output, columns), ACTIVATIONS),
    )


def _flattened(layer: Layer, shape: tuple[int, ...]) -> Row:
    title = f"{layer.name}: {by(*shape)} numbers in one row of {len(layer.output)}"
    return Row(title, [], 0.4, lambda area: _strip(area, layer.output, 4 if len(layer.output) % 4 == 0 else 1))


def _strip(area: Area, values: Floats, rows: int) -> None:
    pixels(area.axes(0, 0, INNER, 0.1 * rows if rows > 1 else 0.25), values.reshape(rows, -1), ACTIVATIONS)


def _answer(explained: Explanation) -> Row:
    """The last linear layer, the softmax, and which pixels counted."""
    layer, found = explained.layers[-2], explained.prediction

    def draw(area: Area) -> None:
        top, height, width = 0.3, 1.7, 3.2
        names = [*map(str, range(10)), "no"]
        area.text(0, 0, "what it says of each digit, and of “no digit”", color=FAINT)
        bars(area.axes(0.35, top, width - 0.35, height), np.array(explained.logits), names, found.digit)
        area.text(3.7, 0, f"the same as probabilities: softmax of the ten / {explained.temperature:.3f}", color=FAINT)
        axes = area.axes(4.05, top, width - 0.35, height)
        bars(axes, np.array(found.probabilities), names[:10], found.digit)
        axes.set_ylim(0, 1)
        area.text(INNER - height, 0, "the pixels that count", color=FAINT)
        occlusion(area.axes(INNER - height, top, height, height), explained)

    title = f"{layer.name}: {len(layer.output)} units, the answer"
    return Row(title, [_count(layer)], 2.3, draw)


def occlusion(axes: Axes, explained: Explanation) -> None:
    """Draw over the digit how far the answer's probability falls."""
    patch, stride, falls = explained.patch, explained.stride, explained.falls
    side = explained.seen.shape[0]
    # Each pixel's fall is the mean of those of the squares that cover it.
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for (row, column), fall in np.ndenumerate(falls):
        square = np.s_[row * stride :, column * stride :]
        total[square][:patch, :patch] += fall
        count[square][:patch, :patch] += 1
    mean = total / np.maximum(count, 1)
    strongest = float(max(mean.max(), 1e-6))
    paper = 1 - explained.seen[..., None] / 255 * 0.75
    colour = np.array(matplotlib.colors.to_rgb(ORANGE))
    share = (mean / strongest).clip(0, 1)[..., None] * 0.85
    pixels(axes, paper * (1 - share) + colour * share, INKS, 1.0)
    axes.spines[:].set(visible=True, linewidth=0.4)


def _count(layer: Layer) -> str:
    weights, biases = layer.weights, layer.biases
    weights_count, biases_count = (0 if each is None else each.size for each in (weights, biases))
    return f"{weights_count:,} weights and {biases_count:,} biases"
