"""Digits drawn large: the size and pen asked for, and still the same digit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from model_export.judging.strokes import crop, draw, enlarge, in_convention, middle_line, place, redraw, skeleton
from tests.pictures import Pixels

Digits = tuple[Pixels, Pixels]


def test_a_drawing_has_the_size_asked_for_and_soft_edges(digits: Digits) -> None:
    for image in digits[0][:10]:
        ink = draw(image, 200)
        assert ink.dtype == np.float32
        assert 160 <= max(ink.shape) <= 220
        assert ink.min() == 0 and ink.max() == 1
        assert 0 < ((ink > 0) & (ink < 1)).mean() < 0.15


def test_an_enlarged_digit_is_the_digit(digits: Digits) -> None:
    """Averaged back to 28x28 it has its ink where it was."""
    for image in digits[0][:10]:
        small = enlarge(image, 280).reshape(28, 10, 28, 10).mean(axis=(1, 3))
        assert np.corrcoef(small.ravel(), image.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("width", [6, 20, 40])
def test_a_pen_has_its_width(digits: Digits, width: int) -> None:
    ink = redraw(digits[0][7], 400, width) > 0.5
    depth = ndimage.distance_transform_edt(ink)
    middle = depth[skeleton(ink)]
    assert np.median(middle) * 2 == pytest.approx(width, abs=2.5)


def test_a_skeleton_is_one_pixel_wide_and_in_as_many_parts(digits: Digits) -> None:
    for image in digits[0][:10]:
        shape = image > 100
        line = skeleton(shape)
        assert not (line & ~shape).any()
        assert ndimage.distance_transform_cdt(np.pad(line, 1), "taxicab").max() == 1
        eight = np.ones((3, 3))
        assert ndimage.label(line, eight)[1] == ndimage.label(shape, eight)[1]


def test_a_loop_full_of_ink_is_drawn_as_a_loop() -> None:
    """A disc on a stalk becomes a ring on a line; a bar alone its skeleton."""
    rows, columns = np.ogrid[:100, :100]
    stalk = (abs(columns - 50) <= 5) & (rows > 10) & (rows < 90)
    line = middle_line(stalk | ((rows - 65) ** 2 + (columns - 50) ** 2 < 18**2))
    assert (ndimage.binary_fill_holes(line) & ~line).sum() > 50
    assert np.array_equal(middle_line(stalk), skeleton(stalk))


def test_in_convention_fits_the_longer_side_and_centres_the_mass(digits: Digits) -> None:
    rng = np.random.default_rng(1)
    for image in digits[0][:10]:
        small = in_convention(place(draw(image, 150), (400, 300), rng))
        assert small.dtype == np.uint8 and small.shape == (28, 28) and small.max() == 255
        assert max(crop(np.asarray(small / 255, np.float32)).shape) in (19, 20)
        assert np.abs(np.subtract(ndimage.center_of_mass(small), 13.5)).max() <= 1


def test_what_has_no_ink_stays_empty() -> None:
    empty = np.zeros((50, 40), np.float32)
    assert crop(empty).shape == (50, 40)
    assert not in_convention(empty).any()
