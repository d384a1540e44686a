"""Small digits drawn large, as a pen would have drawn them: smooth outlines, any stroke width, no pixel steps.

Knows arrays only: no files, no labels. Coverage is the share of a pixel that ink covers, float32, 0 to 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Pixels = npt.NDArray[np.uint8]
Coverage = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SKELETON_SIDE = 180  # five pixels for each of MNIST's: fine enough for loops, small enough to be quick
SMOOTHING = 1.5  # pixels of the skeleton, standard deviation
FULL_LOOP = 1.35  # times the usual half width of a stroke; plain crossings are hardly wider
OUTLINE_LEVEL = 0.45  # of full ink: where MNIST's grey edges are half covered


def draw(digit: Pixels, longer_side: float, pen: float | None = None) -> Coverage:
    """Draw a digit large and crop it to its ink.

    Args:
        digit: uint8 [28, 28] in MNIST's convention, 0 paper to 255 ink.
        longer_side: Of the ink, in pixels; nearly so, since the digits of MNIST are not all of one size.
        pen: The stroke's width as a share of the longer side; None leaves each stroke the width it has.

    Returns:
        float32 [H, W].
    """
    padded = np.pad(digit, 4)  # room for a stroke that becomes wider than it was
    side = round(longer_side * len(padded) / 20)
    return crop(enlarge(padded, side) if pen is None else redraw(padded, side, pen * longer_side))


def enlarge(digit: Pixels, side: int) -> Coverage:
    """Draw a digit, uint8 [S, S], at side x side pixels with the strokes it has and edges one pixel soft."""
    scale = side / len(digit)
    # The Gaussian takes the steps of MNIST's pixels away, whose edges the cubic interpolation keeps.
    smooth = ndimage.gaussian_filter(resize(np.asarray(digit / 255, np.float32), side), 0.35 * scale)
    return np.asarray(np.clip((smooth - OUTLINE_LEVEL) * max(scale, 1.0) + 0.5, 0, 1), np.float32)


def redraw(digit: Pixels, side: int, width: float) -> Coverage:
    """Draw a digit, uint8 [S, S], at side x side pixels along the middle of its strokes, `width` pixels wide."""
    line = middle_line(enlarge(digit, SKELETON_SIDE) > 0.5)
    # Smoothing the distances rounds the steps of the skeleton off. It lifts them near the line, on it by the mean of
    # the Gaussian's absolute value, and hardly farther away; the root takes that back.
    smooth = ndimage.gaussian_filter(ndimage.distance_transform_edt(~line), SMOOTHING)
    distance = np.sqrt(np.maximum(smooth**2 - SMOOTHING**2 * (2 / np.pi), 0))
    scaled = resize(np.asarray(distance, np.float32), side) * (side / SKELETON_SIDE)
    return np.asarray(np.clip(width / 2 - scaled + 0.5, 0, 1), np.float32)


def crop(coverage: Coverage) -> Coverage:
    """Cut the empty margins off a drawing, float32 [H, W]; one without ink stays as it is."""
    rows, columns = np.nonzero(coverage > 0.05)
    if not len(rows):
        return coverage
    return coverage[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def place(ink: Coverage, shape: tuple[int, int], rng: np.random.Generator) -> Coverage:
    """Put a drawing anywhere on an empty page of `shape` that it fits on; float32 of that shape."""
    page = np.zeros(shape, np.float32)
    top, left = (int(rng.integers(0, free + 1)) for free in np.subtract(shape, ink.shape))
    page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return page


def resize(image: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Scale a square float32 image to side x side by cubic interpolation; averages when it shrinks."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def middle_line(shape: Mask) -> Mask:
    """Find the line that a pen drew a digit along, bool [H, W]: its skeleton, and a ring where a loop ran full of ink.

    Thinned to a line, the full loop of an 8 would be a stroke of a 9.
    """
    line, depth = skeleton(shape), ndimage.distance_transform_edt(shape)
    loops = depth > FULL_LOOP * np.median(depth[line])
    return np.asarray((line & ~loops) | (loops & ~ndimage.binary_erosion(loops)), bool)


def skeleton(shape: Mask) -> Mask:
    """Thin a shape, bool [H, W], to lines of one pixel with the same connections.

    T. Zhang, C. Suen, "A fast parallel algorithm for thinning digital patterns", CACM 1984.
    """
    thin = np.pad(shape, 1)
    while True:
        before = int(thin.sum())
        for turn in (0, 1):
            # The eight neighbours of every pixel, clockwise from the one above.
            above, above_right, right, below_right, below, below_left, left, above_left = (
                np.roll(thin, shift, (0, 1))
                for shift in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            )
            ring = np.stack([above, above_right, right, below_right, below, below_left, left, above_left])
            neighbours = ring.sum(axis=0)
            rises = (~ring & np.roll(ring, -1, axis=0)).sum(axis=0)
            corners = (
                ~(above & right & below) & ~(right & below & left)
                if turn == 0
                else ~(above & right & left) & ~(above & below & left)
            )
            thin &= ~((neighbours >= 2) & (neighbours <= 6) & (rises == 1) & corners)
        if thin.sum() == before:
            return thin[1:-1, 1:-1]


def in_convention(coverage: Coverage) -> Pixels:
    """Bring a drawing, float [H, W], to MNIST's convention by the plain rule: uint8 [28, 28], 0 paper to 255 ink.

    The longer side of the ink becomes 20 pixels, the centre of mass comes to the middle; a drawing without ink stays
    empty. On purpose not what the service does with pictures, so that neither is measured by itself.
    """
    field = np.zeros((28, 28), np.uint8)
    ink = crop(coverage)
    if not ink.any():
        return field
    scale = 20 / max(ink.shape)
    height, width = (max(1, round(length * scale)) for length in ink.shape)
    small = np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BOX))
    row, column = ndimage.center_of_mass(small)
    top = int(np.clip(round(13.5 - row), 0, 28 - height))
    left = int(np.clip(round(13.5 - column), 0, 28 - width))
    field[top : top + height, left : left + width] = (small * (255 / max(small.max(), 0.05))).clip(0, 255).round()
    return field
