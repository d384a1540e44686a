"""A picture -> how much ink is where: the paper, its light, its rules and whatever else lies on it taken away.

The way: `colour_of_ink` makes one channel of three, `dark_on_light` settles
which of the two is ink, `rise_above_paper` takes the paper away, and
`find_digit` leaves of what remains the one digit, or the several that are
there. Paper is what a grey closing (dilation, then erosion; Serra, "Image
Analysis and Mathematical Morphology", 1982) leaves of a picture: strokes
vanish in it and shadows, table edges and glare stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from service.parts import Parts, find_parts
from service.rules import without_rules

Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]

# Contrast, out of 255, below which a picture holds no ink worth enlarging.
FAINTEST_INK = 10
# Standard deviations of the paper's noise that ink has to rise above.
ABOVE_NOISE = 5.0
# Strokes are narrower than this share of the picture; what is wider belongs to the paper and its light.
WIDEST_STROKE = 0.4
# Pictures with fewer pixels a side are not smoothed: a stroke may be one pixel wide.
SMOOTHED_SIDE = 150


def find_ink(picture: Pixels) -> Field | None:
    """How much of each pixel is ink of the digit.

    Args:
        picture: uint8 of shape (height, width) or (height, width, 3).

    Returns:
        float32 of shape (height, width), 0 paper to 1 ink; None when the picture shows no ink.
    """
    rise, noise = rise_above_paper(dark_on_light(colour_of_ink(picture)))
    faintest = max(FAINTEST_INK, ABOVE_NOISE * noise)
    rise = without_rules(rise, faintest)
    return find_digit(rise, faintest, noise)


def colour_of_ink(picture: Pixels) -> Pixels:
    """One channel in which ink and paper differ most, whatever the colours of the two.

    It is the first principal component of the differences between each pixel
    and its surroundings, since light changes slowly and strokes do not.
    """
    if picture.ndim == 2:
        return picture
    if np.array_equal(picture[..., 0], picture[..., 1]) and np.array_equal(picture[..., 0], picture[..., 2]):
        return picture[..., 0]
    coarse = picture[:: max(1, len(picture) // 200), :: max(1, picture.shape[1] // 200)].astype(np.float32)
    detail = coarse - box_mean(coarse, max(2, max(coarse.shape) // 8))
    # The strongest differences are strokes; the many weak ones are noise.
    strength = (detail**2).sum(-1)
    chosen = detail[strength >= np.quantile(strength, 0.9)]
    direction = np.linalg.eigh(chosen.T @ chosen)[1][:, -1]
    direction *= np.sign(direction.sum()) or 1.0
    channel = picture.astype(np.float32) @ (direction / np.sqrt(3)).astype(np.float32)
    lowest = min(float(channel.min()), 0.0)
    return np.asarray((channel - lowest).clip(0, 255), np.uint8)


def dark_on_light(channel: Pixels) -> Pixels:
    """Turn the picture into its negative where ink is the lighter of the two.

    Ink covers less than paper does, so the differences from the surroundings
    are skewed towards it; and most of a picture's border is paper.
    """
    step = max(1, max(channel.shape) // 128)
    values = channel[::step, ::step].astype(np.float32)
    near = values - box_mean(values[..., None], max(3, max(values.shape) // 5))[..., 0]
    spread = float(np.sqrt((near**2).mean())) + 1e-3
    skewness = float((near**3).mean()) / spread**3
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    inward = (float(values.mean()) - float(np.median(border))) / (float(values.std()) + 1e-3)
    ink_is_light = skewness + min(max(inward, -1.0), 1.0) > 0
    return 255 - channel if ink_is_light else channel


def rise_above_paper(grey: Pixels) -> tuple[Field, float]:
    """How far each pixel is darker than the paper under it, in levels as if all paper were lit alike.

    Returns:
        float32 of shape (height, width), at least 0, and the standard deviation of its noise.
    """
    level = even_paper(grey)
    if level is not None:
        return (level - grey.astype(np.float32)).clip(0), 0.0
    if min(grey.shape) >= SMOOTHED_SIDE:
        grey = box_mean(grey.astype(np.float32)[..., None], 1)[..., 0].round().astype(np.uint8)
    paper = closing(grey, max(3, round(WIDEST_STROKE * max(grey.shape))))
    rise = paper.astype(np.float32) - grey
    # Ink reflects a share of the light: in half the light its contrast is half.
    brightness = paper.astype(np.float32) + 16
    rise *= (float(np.median(brightness)) / brightness).clip(0.5, 3)
    # A closing lies above noisy paper by as much as the noise reaches.
    sixteenth, offset = np.quantile(rise, [0.16, 0.5])
    noise = float(offset - sixteenth)
    return (rise - offset).clip(0), noise


def even_paper(grey: Pixels) -> float | None:
    """The level of paper that is the same almost everywhere, as in drawings made on a screen; None of a photo."""
    counts = np.bincount(grey.reshape(-1), minlength=256)
    level = int(counts.argmax())
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if counts[level] < 0.5 * grey.size or (border == level).mean() < 0.5:
        return None
    return float(level)


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
    for axis in (0, 1):
        moved = np.moveaxis(values, axis, 0)
        sums = np.pad(moved, [(radius + 1, radius), (0, 0), (0, 0)], mode="edge").cumsum(0, dtype=np.float64)
        width = 2 * radius + 1
        values = np.moveaxis(((sums[width:] - sums[:-width]) / width).astype(np.float32), 0, axis)
    return values


def find_digit(rise: Field, faintest: float, noise: float) -> Field | None:
    """Keep of the ink what belongs to the digit, and scale it to 0 to 1."""
    parts = find_parts(rise, faintest)
    if not parts.any_ink():
        return None
    # What is much fainter than the digit's ink is smudge, shadow or show-through.
    strong = strength(parts)
    if (threshold := 0.35 * strong) > faintest:
        parts = find_parts(rise, threshold)
        strong = strength(parts)
    floor = min(3 * noise, strong / 2)
    ink = ((rise - floor) / (strong - floor)).clip(0, 1)
    return np.asarray(ink * parts.mask_of(parts.digit()), np.float32)


def strength(parts: Parts) -> float:
    """Contrast of the digit's ink: what a tenth of its pixels exceed."""
    return parts.quantile(parts.digit(), 0.9)
