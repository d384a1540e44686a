"""The operations on whole pictures do what scipy's do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from service.pictures.filters import box_mean, closing, roughness, shrink


@pytest.fixture
def picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (50, 37), np.uint8)


@pytest.mark.parametrize("side", [3, 5, 9, 21, 61])
def test_closing_is_that_of_scipy(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], side: int) -> None:
    expected = ndimage.grey_closing(np.pad(picture, side, mode="edge"), (side, side))[side:-side, side:-side]
    assert np.array_equal(closing(picture, side), expected)


def test_closing_fills_what_is_narrower_than_its_square_and_keeps_edges() -> None:
    page = np.full((60, 80), 200, np.uint8)
    page[:, 50:] = 90
    with_stroke = page.copy()
    with_stroke[10:50, 20:26] = 10
    assert np.array_equal(closing(with_stroke, 9), page)
    assert np.array_equal(closing(with_stroke, 5), with_stroke)


@pytest.mark.parametrize("radius", [1, 4, 40])
def test_mean_over_squares_is_that_of_scipy(
    picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], radius: int
) -> None:
    values = np.asarray(picture[..., None], np.float32)
    expected = ndimage.uniform_filter(values[..., 0], 2 * radius + 1, mode="nearest")
    assert np.allclose(box_mean(values, radius)[..., 0], expected, atol=0.01)


def test_shrinking_averages_and_keeps_the_type() -> None:
    page = np.array([[0, 100, 10, 10], [100, 200, 10, 10]], np.uint8)
    assert shrink(page, 2).tolist() == [[100, 10]] and shrink(page, 2).dtype == np.uint8
    assert shrink(page, 4) is page


def test_an_edge_is_rougher_than_a_gradient() -> None:
    gradient = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (100, 1))
    assert roughness(np.where(gradient > 127, 255, 0).astype(np.uint8)) > 20 * roughness(gradient)
