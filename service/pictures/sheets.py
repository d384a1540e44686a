"""A sheet of paper that lies on something darker: found, and taken out of the picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.pictures.filters import between, shrink
from service.pictures.parts import filled, find_runs, label_runs, paint

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

# Pixels a side of the reduced picture in which a sheet is looked for.
GLANCE_SIDE = 128
# Share of the picture that a sheet covers; what is smaller may be anything.
SMALLEST, LARGEST = 0.05, 0.85
# Share of the picture's border that is dark.
OUTSIDE = 0.9
# Of a sheet, this share is paper; of a digit written in light ink, less.
PAPER = 0.85
# Share of the rectangle with the same moments that it fills.
RECTANGULAR = 0.9
# A sheet is not longer than this many times its width; a stroke of chalk is.
LONGEST = 3.0
# Levels that a sheet is lighter than what it lies on,
LIGHTER = 40
# and the share of them within two pixels of its edge, which is softer where light makes a lit place.
SHARP = 0.6


def without_table(picture: Pixels) -> Pixels:
    """The part of a picture with the sheet in it, painted like its paper around it; the picture if there is none.

    Args:
        picture: uint8 of shape (height, width) or (height, width, 3).
    """
    # Green is most of what the eye takes for light.
    grey = picture if picture.ndim == 2 else picture[..., 1]
    glance = shrink(grey, GLANCE_SIDE)
    light = glance > between(glance)
    sheet = filled(_largest(light))
    if not _is_sheet(glance, light, sheet):
        return picture
    step = -(-max(grey.shape) // GLANCE_SIDE)
    inner = np.repeat(np.repeat(_eroded(_eroded(sheet)), step, 0), step, 1)
    rows, columns = np.flatnonzero(inner.any(1)), np.flatnonzero(inner.any(0))
    if not len(rows):
        return picture
    place = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    paper = np.median(picture[: inner.shape[0], : inner.shape[1]][inner], axis=0)
    mask = inner[place] if picture.ndim == 2 else inner[place][..., None]
    return np.where(mask, picture[place], np.asarray(paper, np.uint8))


def _is_sheet(glance: Pixels, light: Mask, sheet: Mask) -> bool:
    inside = int(sheet.sum())
    if not SMALLEST * sheet.size <= inside <= LARGEST * sheet.size or (light & sheet).sum() < PAPER * inside:
        return False
    # Of all light, since the corners around a large 0 are as light as what it surrounds.
    border = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    if 1 - border.mean() < OUTSIDE:
        return False
    places = np.stack(np.nonzero(sheet)).astype(np.float64)
    sides = np.sqrt(12 * np.linalg.eigvalsh(np.cov(places)).clip(0.1))
    if inside < RECTANGULAR * sides.prod() or sides[1] > LONGEST * sides[0]:
        return False
    around = ~sheet
    step = float(np.median(glance[light & sheet])) - float(np.median(glance[around]))
    inner, outer = sheet & ~_eroded(_eroded(sheet)), around & ~_eroded(_eroded(around))
    edge = float(np.median(glance[inner])) - float(np.median(glance[outer]))
    return step >= LIGHTER and edge >= SHARP * step


def _largest(mask: Mask) -> Mask:
    """The largest connected part."""
    runs = find_runs(mask)
    if not len(runs.row):
        return mask
    label = label_runs(runs, mask.shape[1])
    return paint(runs.only(label == np.bincount(label, runs.end - runs.start).argmax()), mask.shape)


def _eroded(mask: Mask) -> Mask:
    """Pixels with no neighbour outside the mask; beyond the picture nothing is outside."""
    padded = np.pad(mask, 1, constant_values=True)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & mask
