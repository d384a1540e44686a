"""Ink -> 28x28 pixels as MNIST has them.

MNIST's convention: light ink (255) on dark paper (0), the digit scaled so
that its longer side is 20 pixels, its centre of mass in the middle of 28x28
(LeCun et al., "The MNIST database"). Its strokes are about 2 to 3.5 pixels
wide; a hairline or a marker is brought to that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.pictures.steps import Note, unnoted

Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]

SIDE = 28
DIGIT_SIDE = 20
# Strokes are widened and narrowed on a canvas this much finer than the result.
FINER = 4
# Width of strokes in pixels of the result.
THINNEST_STROKE, WIDEST_STROKE = 1.8, 3.4
THIN_BECOMES, WIDE_BECOMES = 2.3, 3.0
# A pixel that a stroke only grazes counts for more than its share of ink: tiny pictures have hardly any others.
GRAZED = 0.8
# Of the enlarged ink, what is below the first share is paper and what is above the second full.
EDGE_BEGINS, EDGE_ENDS = 0.15, 0.82


def to_convention(ink: Field, note: Note = unnoted) -> Pixels:
    """Bring the ink of one digit into MNIST's convention.

    Args:
        ink: float32 of shape (height, width), 0 paper to 1 ink, with some ink.
        note: Is shown the pictures on the way.

    Returns:
        uint8 of shape (28, 28), 0 paper to 255 ink.
    """
    note("ink", ink)
    digit = crop(ink)
    if max(digit.shape) != DIGIT_SIDE or not THINNEST_STROKE <= stroke_width(digit) <= WIDEST_STROKE:
        even = even_stroke(enlarge(digit))
        note("stroke", even)
        digit = resize(even, DIGIT_SIDE)
    return centre(whiten(digit))


def follows_convention(grey: Pixels) -> bool:
    """Whether a picture already looks as MNIST's do.

    True for all 70,000 images of MNIST: 28x28, paper exactly 0, the ink's
    longer side 19 or 20 pixels, its strongest pixel at least 254, its centre
    of mass within half a pixel of (14, 14).
    """
    if grey.shape != (SIDE, SIDE) or grey.max() < 254:
        return False
    rows, columns = np.flatnonzero(grey.any(1)), np.flatnonzero(grey.any(0))
    longer_side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    return DIGIT_SIDE - 1 <= longer_side <= DIGIT_SIDE and all(13.4 < place < 14.6 for place in centre_of_mass(grey))


def crop(ink: Field) -> Field:
    """Cut off the rows and columns without ink at the edges."""
    # Less than that is the seam of a stroke: it would make the digit smaller than it is.
    marked = ink > 0.05
    rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def enlarge(ink: Field) -> Field:
    """Bring the digit to the finer canvas, its strokes full, their edges sharp, and cut off what is no ink there."""
    # The paper around it lets strokes at the edge end within their pixels, and not at the pixels' edges.
    ringed = with_margin(ink, 1) ** np.float32(GRAZED)
    large = resize(ringed, round(DIGIT_SIDE * FINER * max(ringed.shape) / max(ink.shape)))
    peak = max(float(large.max()), 1e-6)
    return crop(np.asarray(((large / peak - EDGE_BEGINS) / (EDGE_ENDS - EDGE_BEGINS)).clip(0, 1), np.float32))


def resize(ink: Field, longer_side: int) -> Field:
    """Scale so that the longer side has this many pixels, keeping the shape."""
    height, width = ink.shape
    scale = longer_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resample = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(ink).resize(size, resample)).clip(0, 1)


def stroke_width(ink: Field) -> float:
    """Mean width of the strokes in pixels: twice the area for each unit of the outline.

    The outline's length is the total variation of the ink (co-area formula), which needs no threshold.
    """
    padded = with_margin(ink, 1)
    corner = padded[:-1, :-1]
    down, right = padded[1:, :-1] - corner, padded[:-1, 1:] - corner
    down *= down
    right *= right
    down += right
    return float(2 * ink.sum() / max(np.sqrt(down, out=down).sum(), 1e-6))


def even_stroke(ink: Field) -> Field:
    """Widen thin strokes and narrow thick ones of a digit on the finer canvas."""
    width = stroke_width(ink) * DIGIT_SIDE / max(ink.shape)
    if width < THINNEST_STROKE:
        return widen(ink, _pixels_a_side(THIN_BECOMES, width))
    if width > WIDEST_STROKE:
        return narrow(ink, _pixels_a_side(width, WIDE_BECOMES))
    return ink


def _pixels_a_side(wide: float, thin: float) -> int:
    """Half the difference of two widths, on the finer canvas; the digit grows with its strokes and is scaled back."""
    return round((wide - thin) / 2 * FINER * DIGIT_SIDE / (DIGIT_SIDE - wide))


def widen(ink: Field, radius: int) -> Field:
    """Grey dilation with a disc; the field grows by the radius on every side."""
    padded = with_margin(ink, 2 * radius)
    height, width = padded.shape[0] - 2 * radius, padded.shape[1] - 2 * radius
    wide = np.zeros((height, width), np.float32)
    # A disc is made of rows, the longest in its middle; each is the one before it and a pixel more on both sides.
    row, half = padded[:, radius : radius + width].copy(), 0
    for down in range(radius, -1, -1):
        while (half + 1) ** 2 + down**2 <= (radius + 0.3) ** 2:
            half += 1
            for start in (radius - half, radius + half):
                np.maximum(row, padded[:, start : start + width], out=row)
        for start in {radius - down, radius + down}:
            np.maximum(wide, row[start : start + height], out=wide)
    return wide


def with_margin(ink: Field, width: int) -> Field:
    """Paper added on every side."""
    padded = np.zeros((ink.shape[0] + 2 * width, ink.shape[1] + 2 * width), np.float32)
    padded[width : width + ink.shape[0], width : width + ink.shape[1]] = ink
    return padded


def narrow(ink: Field, radius: int) -> Field:
    """Grey erosion with a disc, which opens holes that a marker has nearly filled."""
    paper = widen(1 - with_margin(ink, radius), radius)
    inner = slice(2 * radius, -2 * radius or None)
    return crop(1 - paper[inner, inner])


def whiten(ink: Field) -> Pixels:
    """Scale to 0 to 255: MNIST's strokes are white in the middle."""
    return np.asarray((ink * (255 / max(float(ink.max()), 1e-6))).round(), np.uint8)


def centre(digit: Pixels) -> Pixels:
    """Place a digit of at most 20x20 in 28x28 with its centre of mass in the middle."""
    height, width = digit.shape
    row, column = centre_of_mass(digit)
    top = min(max(round(SIDE / 2 - row), 0), SIDE - height)
    left = min(max(round(SIDE / 2 - column), 0), SIDE - width)
    field = np.zeros((SIDE, SIDE), np.uint8)
    field[top : top + height, left : left + width] = digit
    return field


def centre_of_mass(ink: Pixels) -> tuple[float, float]:
    """Row and column of the centre of mass, in pixels from the top left pixel's middle."""
    rows, columns = ink.sum(1, dtype=np.float64), ink.sum(0, dtype=np.float64)
    total = rows.sum()
    return float(rows @ np.arange(len(rows)) / total), float(columns @ np.arange(len(columns)) / total)
