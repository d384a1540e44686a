"""Ink becomes 28x28 as MNIST has it: 20 pixels long, centred, with strokes of a healthy width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from service.pictures.convention import centre_of_mass, follows_convention, stroke_width, to_convention, widen
from tests.mnist_files import read_images
from tests.pictures import Pixels


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_every_mnist_image_follows_the_convention(mnist: Path, part: str) -> None:
    assert all(follows_convention(image) for image in read_images(mnist, part))


@pytest.mark.parametrize("shape", [(28, 28, 3), (28, 27), (1, 1), (8, 8)])
def test_other_shapes_do_not(shape: tuple[int, ...]) -> None:
    assert not follows_convention(np.full(shape, 255, np.uint8))


def test_what_is_moved_or_faint_or_full_does_not(digits: tuple[Pixels, Pixels]) -> None:
    digit = digits[0][0]
    assert follows_convention(digit)
    for other in (np.roll(digit, 2, 0), digit // 2, 255 - digit, np.full((28, 28), 255, np.uint8)):
        assert not follows_convention(other)


def test_ink_in_the_convention_is_hardly_changed(digits: tuple[Pixels, Pixels]) -> None:
    for digit in digits[0][:50]:
        seen = to_convention(np.asarray(digit / 255, np.float32))
        assert follows_convention(seen)
        assert np.abs(seen.astype(float) - digit).mean() < 22


@pytest.mark.parametrize(("side", "pen"), [(28, 1), (28, 6), (300, 1), (300, 5), (300, 30), (300, 75)])
def test_strokes_of_any_pen_become_alike(side: int, pen: int) -> None:
    page = Image.new("L", (side, side))
    ImageDraw.Draw(page).ellipse([2, 2, side - 3, side - 3], outline=255, width=pen)
    seen = to_convention(np.asarray(np.asarray(page) / 255, np.float32))
    assert 1.6 < stroke_width(np.asarray(seen / 255, np.float32)) < 3.8
    rows, columns = np.nonzero(seen > 20)
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
    assert seen[13:15, 13:15].max() < 60, "the hole is filled"
    assert seen.max() == 255


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 3)])
def test_any_shape_fits(shape: tuple[int, int]) -> None:
    seen = to_convention(np.ones(shape, np.float32))
    assert seen.shape == (28, 28) and seen.dtype == np.uint8 and seen.max() == 255
    assert all(13 <= place <= 15 for place in centre_of_mass(seen))


def test_stroke_width_is_the_width_of_a_bar_however_it_lies() -> None:
    straight = np.zeros((120, 120), np.float32)
    straight[20:100, 50:60] = 1
    turned = np.asarray(Image.fromarray(straight).rotate(30, Image.Resampling.BICUBIC)).clip(0, 1)
    assert stroke_width(straight) == pytest.approx(2 * 800 / 180, abs=0.3)
    assert stroke_width(turned) == pytest.approx(2 * 800 / 180, rel=0.15)


@pytest.mark.parametrize("radius", range(6))
def test_strokes_are_widened_by_a_disc(radius: int) -> None:
    ink = np.random.default_rng(radius).random((17, 30), np.float32)
    down, right = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = down**2 + right**2 <= (radius + 0.3) ** 2
    expected = ndimage.grey_dilation(np.pad(ink, radius), footprint=disc, mode="constant")
    assert np.array_equal(widen(ink, radius), expected)
