"""Operations on whole pictures that numpy does not have: a grey closing, means over squares, a measure of roughness."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def closing(grey: Pixels, side: int) -> Pixels:
    """Grey closing with a square: dark things in which the square finds no room take the level around them."""
    before, after = side // 2, side - 1 - side // 2
    widened = np.pad(grey, side, mode="edge")
    for operation in (np.maximum, np.minimum):
        for axis in (0, 1):
            widened = _over_window(operation, widened, side, axis)
    # Each of the two passes shortened the picture by side - 1 at its end.
    start = side - before - after
    return widened[start : start + grey.shape[0], start : start + grey.shape[1]]


def _over_window(operation: Any, values: Pixels, side: int, axis: int) -> Pixels:
    """Maximum or minimum over each window of `side`, by doubling: log2(side) passes over the picture."""
    values = np.moveaxis(values, axis, 0)
    reach = 1
    while reach < side:
        shift = min(reach, side - reach)
        values = operation(values[:-shift], values[shift:])
        reach += shift
    return np.moveaxis(values, 0, axis)


def box_mean(values: Field, radius: int) -> Field:
    """Mean over the square of 2 radius + 1 around each pixel of (height, width, channels), edges repeated."""
    width = 2 * radius + 1
    for axis in (0, 1):
        moved = np.moveaxis(values, axis, 0)
        within = np.arange(-radius - 1, len(moved) + radius).clip(0, len(moved) - 1)
        sums = moved[within].cumsum(0, dtype=np.float64)
        values = np.moveaxis(((sums[width:] - sums[:-width]) / width).astype(np.float32), 0, axis)
    return values


def shrink(values: Any, side: int) -> Any:
    """Average whole squares of pixels so that the longer side has at most `side`; of the same type."""
    step = -(-max(values.shape) // side)
    height, width = values.shape[0] // step, values.shape[1] // step
    if step == 1 or not height or not width:
        return values
    blocks = values[: height * step, : width * step].reshape(height, step, width, step)
    return blocks.mean((1, 3), dtype=np.float32).astype(values.dtype)


def with_seam(mask: Mask) -> Mask:
    """The mask and the pixels beside it, in which strokes fade out."""
    wider = mask.copy()
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:-1], np.s_[1:])):
        wider[here] |= mask[there]
        wider[:, here] |= mask[:, there]
    return wider


def roughness(grey: Pixels) -> float:
    """Sum of the squared differences between neighbours, which counts sharp edges; more in the middle."""
    values = grey.astype(np.float32)
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in grey.shape)
    weight = (np.outer(rows, columns) + 0.01).astype(np.float32)
    down, across = np.diff(values, axis=0) ** 2, np.diff(values, axis=1) ** 2
    return float((down * weight[:-1]).sum() + (across * weight[:, :-1]).sum())


def between(grey: Pixels) -> float:
    """The level that divides light from dark best (Otsu, 1979)."""
    counts = np.bincount(grey.reshape(-1), minlength=256).astype(np.float64)
    below, levels = counts.cumsum(), np.arange(256)
    sums = (counts * levels).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(np.nan_to_num(apart).argmax())
