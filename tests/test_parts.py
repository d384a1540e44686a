"""Connected parts are found as they are, and the right ones are the digit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from service.pictures.parts import find_digit_parts, find_parts, find_runs, is_one_part, label_runs, paint


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1))
def test_labels_are_those_of_scipy(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = find_runs(mask)
    label = label_runs(runs, width)
    expected, count = ndimage.label(mask, np.ones((3, 3)))
    assert np.array_equal(paint(runs, mask.shape), mask)
    assert len(set(label)) == count
    assert len(set(zip(label.tolist(), expected[runs.row, runs.start].tolist(), strict=True))) == count
    assert is_one_part(mask) == (count == 1)


def test_a_small_picture_of_one_part_is_found_as_a_large_one_is() -> None:
    page = field((20, 40, 80, 50))
    small = page[15:60, 35:80].copy()
    found = find_digit_parts(small, 50)
    parts = find_parts(small, 50)
    assert found is not None and found[1] == parts.extent()[parts.digit()].max() == 40
    assert np.array_equal(found[0], parts.mask_of(parts.digit()))
    assert find_digit_parts(page, 200) is None


def field(*bars: tuple[int, int, int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    page = np.zeros((100, 100), np.float32)
    for top, left, bottom, right in bars:
        page[top:bottom, left:right] = 100
    return page


@pytest.mark.parametrize(
    ("bars", "kept"),
    [
        ([(20, 40, 80, 50)], 1),
        # a 4 in two parts, and the bar of a 5 beside its belly
        ([(20, 40, 55, 45), (20, 52, 80, 58)], 2),
        ([(30, 40, 80, 50), (22, 53, 28, 75)], 2),
        # specks, near and far
        ([(20, 40, 80, 50), (40, 58, 44, 62), (85, 85, 88, 88), (5, 5, 9, 9)], 1),
        # two digits side by side stay two
        ([(20, 20, 80, 30), (20, 60, 80, 70)], 2),
        # the edge of a table is none
        ([(30, 40, 80, 50), (0, 97, 100, 100)], 1),
        # what touches the border is a digit where there is nothing else
        ([(0, 40, 80, 50), (90, 90, 93, 93)], 1),
    ],
)
def test_which_parts_are_the_digit(bars: list[tuple[int, int, int, int]], kept: int) -> None:
    parts = find_parts(field(*bars), 50)
    chosen = parts.digit()
    assert len(parts.weight) == len(bars) and len(chosen) == kept
    mask = parts.mask_of(chosen)
    assert all(mask[top, left] for top, left, _, _ in bars[:kept])


def test_a_page_without_ink_has_no_parts() -> None:
    assert not find_parts(field(), 50).any_ink()


@pytest.mark.parametrize(
    ("bars", "kept"),
    [
        # a pen beside a digit, and the band of a shadow from border to border
        ([(40, 60, 70, 80), (5, 30, 95, 36)], [0]),
        ([(40, 60, 70, 80), (0, 30, 100, 36)], [0]),
        # a one alone, and beside a speck
        ([(20, 30, 80, 36)], [0]),
        ([(20, 30, 80, 36), (40, 80, 44, 84)], [0]),
        # a one beside another digit, and the two strokes of a four
        ([(40, 60, 70, 80), (35, 30, 75, 36)], [0, 1]),
        ([(30, 40, 60, 55), (22, 57, 82, 63)], [0, 1]),
    ],
)
def test_a_pen_or_a_shadow_beside_a_digit_is_no_part_of_it(
    bars: list[tuple[int, int, int, int]], kept: list[int]
) -> None:
    parts = find_parts(field(*bars), 50)
    mask = parts.mask_of(parts.digit())
    assert [number for number, (top, left, *_) in enumerate(bars) if mask[top, left]] == kept


@pytest.mark.parametrize(
    ("ring", "inside", "is_kept"),
    [
        ("rectangle", (30, 40, 70, 50), False),
        # a zero with a dot, a square alone, and one with a speck in it
        ("ellipse", (45, 45, 60, 55), True),
        ("rectangle", None, True),
        ("rectangle", (30, 30, 33, 33), True),
    ],
)
def test_a_frame_around_a_digit_is_no_part_of_it(
    ring: str, inside: tuple[int, int, int, int] | None, is_kept: bool
) -> None:
    page = Image.new("F", (100, 100))
    draw = ImageDraw.Draw(page)
    (draw.rectangle if ring == "rectangle" else draw.ellipse)((10, 12, 90, 88), outline=100, width=3)
    rise = np.maximum(np.asarray(page), field(inside) if inside else 0)
    parts = find_parts(np.asarray(rise, np.float32), 50)
    mask = parts.mask_of(parts.digit())
    assert mask[50, 11] == is_kept
    assert not inside or is_kept or mask[inside[0], inside[1]]
