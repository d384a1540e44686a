"""Draws what is no digit, for the network to learn the difference from (outlier exposure, Hendrycks et al. 2019).

None of these kinds is among those that judge a model: `non_digits` draws letters, symbols, clothes, textures and the
like, which no training sees. Most kinds here are made from the digits of the training part, so that neither ink nor
stroke, but only the shape tells the two apart. Knows images and a random generator only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]

SIDE, BOX_SIDE = 28, 20
ENLARGED = 6  # strokes are drawn so much larger and averaged, which makes their edges smooth
# Digits that are none in a mirror, and lying on their side; a mirrored 2 is nearly a 5, an 8 stays an 8.
MIRRORED = (3, 7, 9)
LYING = (2, 3, 4, 5, 6, 7, 9)


def draw_scribbles(count: int, digits: Pixels, labels: Pixels, seed: int) -> Pixels:
    """Draw images that are no digits, every kind as often as the others.

    Args:
        count: How many.
        digits: uint8 [N, 28, 28], 0 paper to 255 ink, to make some kinds from.
        labels: uint8 [N], what they show.
        seed: The same seed and digits give the same images.

    Returns:
        uint8 [count, 28, 28], in MNIST's convention, in no particular order.
    """
    random = np.random.default_rng(seed)
    to_mirror, to_lay = digits[np.isin(labels, MIRRORED)], digits[np.isin(labels, LYING)]
    kinds: tuple[Callable[[], Pixels], ...] = (
        lambda: _figure(random),
        lambda: _letterlike(random),
        lambda: _blot(random),
        lambda: _shuffled(_pick(digits, random), random),
        lambda: np.fliplr(_pick(to_mirror, random)),
        lambda: np.rot90(_pick(to_lay, random), random.choice([1, 3])),
        lambda: _overlaid(digits, labels, random),
        lambda: _stacked([_pick(digits, random) for _ in range(random.integers(2, 4))], random),
        lambda: _scratched(_pick(digits, random), random),
        lambda: 255 - _pick(digits, random),
    )
    return np.stack([kinds[index % len(kinds)]() for index in range(count)])


def _pick(digits: Pixels, random: np.random.Generator) -> Pixels:
    picked: Pixels = digits[random.integers(len(digits))]
    return picked


def _figure(random: np.random.Generator) -> Pixels:
    """Three to seven curved strokes anywhere."""
    strokes = [_curve(random.uniform(0, 1, (3, 2))) for _ in range(random.integers(3, 8))]
    return _in_convention(_ink(strokes, random.uniform(0.04, 0.14)))


def _letterlike(random: np.random.Generator) -> Pixels:
    """Three to six strokes between the nine points of a frame, mostly straight, as the signs of a script are built."""
    points = np.stack(np.meshgrid([0.1, 0.5, 0.9], [0.0, 0.5, 1.0]), axis=-1).reshape(-1, 2)
    strokes = []
    for _ in range(random.integers(3, 7)):
        start, end = points[random.choice(9, 2, replace=False)]
        middle = (start + end) / 2 + random.normal(0, 0.25, 2) * (random.random() < 0.4)
        strokes.append(_curve(np.stack([start, middle, end]) + random.normal(0, 0.03, (3, 2))))
    return _in_convention(_ink(strokes, random.uniform(0.05, 0.14)))


def _blot(random: np.random.Generator) -> Pixels:
    """A filled spot: a closed line that wanders around a middle, now and then two of them."""
    side = BOX_SIDE * ENLARGED
    page = Image.new("L", (side, side))
    for _ in range(random.integers(1, 3)):
        angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
        reach = random.uniform(0.15, 0.5, 9) * side
        middle = random.uniform(0.35, 0.65, 2) * side
        outline = middle + np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None]
        ImageDraw.Draw(page).polygon([(x, y) for x, y in outline.tolist()], fill=int(random.integers(120, 256)))
    return _in_convention(np.asarray(page))


def _shuffled(digit: Pixels, random: np.random.Generator) -> Pixels:
    """The four quarters, or sixteen sixteenths, of a digit's box in another order."""
    box = digit[4:24, 4:24]
    parts = int(random.choice([2, 4]))
    tiles = [tile for row in np.split(box, parts) for tile in np.split(row, parts, axis=1)]
    order = random.permutation(len(tiles))
    mixed = np.block([[tiles[order[row * parts + column]] for column in range(parts)] for row in range(parts)])
    return _in_convention(mixed)


def _overlaid(digits: Pixels, labels: Pixels, random: np.random.Generator) -> Pixels:
    """One digit written over another that is neither the same nor a mere stroke, a little beside it."""
    first, second = random.integers(len(digits), size=2)
    while labels[first] == labels[second] or labels[second] == 1:
        second = random.integers(len(digits))
    beside = np.roll(digits[second], random.choice([-5, -4, -3, 3, 4, 5], 2), axis=(0, 1))
    return _in_convention(np.maximum(digits[first], beside))


def _stacked(digits: list[Pixels], random: np.random.Generator) -> Pixels:
    """Two or three digits, one above the other."""
    rows = []
    for digit in digits:
        inked = np.flatnonzero(digit.max(axis=1) > 20)
        rows.append(np.roll(digit[inked[0] : inked[-1] + 1], random.integers(-3, 4), axis=1))
    return _in_convention(np.concatenate(rows))


def _scratched(digit: Pixels, random: np.random.Generator) -> Pixels:
    """A digit that was crossed out with three to six strokes."""
    strokes = [_curve(random.uniform(-0.1, 1.1, (3, 2))) for _ in range(random.integers(3, 7))]
    scratches = Image.fromarray(_ink(strokes, random.uniform(0.04, 0.1))).resize((SIDE, SIDE), Image.Resampling.BOX)
    return _in_convention(np.maximum(digit, np.asarray(scratches)))


def _curve(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Twelve points, float64 [12, 2], along the quadratic Bezier curve of three."""
    t = np.linspace(0, 1, 12)[:, None]
    curve: npt.NDArray[np.float64] = (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]
    return curve


def _ink(strokes: list[npt.NDArray[np.float64]], width: float) -> Pixels:
    """Draw lines through points of 0 to 1 with a round pen of this width, uint8 [120, 120]."""
    side = BOX_SIDE * ENLARGED
    page = Image.new("L", (side, side))
    pen = ImageDraw.Draw(page)
    radius = width * side / 2
    for stroke in strokes:
        points = [(x, y) for x, y in (radius + stroke * (side - 2 * radius)).tolist()]
        pen.line(points, fill=255, width=round(2 * radius), joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(page)


def _in_convention(ink: Pixels) -> Pixels:
    """Fit ink of any size into 20x20 and centre its mass in 28x28, as MNIST's digits are."""
    rows, columns = np.nonzero(ink > 20)
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = ink.shape
    scale = BOX_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(
        Image.fromarray(ink).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    )
    weights = small / max(int(small.sum()), 1)
    row, column = weights.sum(1) @ np.arange(size[1]), weights.sum(0) @ np.arange(size[0])
    top, left = np.clip([round(SIDE / 2 - row), round(SIDE / 2 - column)], 0, [SIDE - size[1], SIDE - size[0]])
    field = np.zeros((SIDE, SIDE), np.uint8)
    field[top : top + size[1], left : left + size[0]] = small
    return field
