"""What is no digit: drawn in MNIST's convention, the same for a seed, and never a digit of the set."""

from __future__ import annotations

import numpy as np

from model_export.scribbles import draw_scribbles
from tests.mnist_files import small_digits

IMAGES, LABELS = small_digits("train")
KINDS = 10


def test_the_same_seed_draws_the_same_and_another_another() -> None:
    first = draw_scribbles(20, IMAGES, LABELS, seed=1)
    np.testing.assert_array_equal(first, draw_scribbles(20, IMAGES, LABELS, seed=1))
    assert not np.array_equal(first, draw_scribbles(20, IMAGES, LABELS, seed=2))


def test_they_are_images_with_ink_and_none_is_a_digit_of_the_set() -> None:
    scribbles = draw_scribbles(200, IMAGES, LABELS, seed=1)
    assert scribbles.shape == (200, 28, 28) and scribbles.dtype == np.uint8
    assert (scribbles.max(axis=(1, 2)) > 60).all()
    digits = {image.tobytes() for image in IMAGES}
    assert not [image for image in scribbles if image.tobytes() in digits]
    assert len({image.tobytes() for image in scribbles}) > 195


def test_what_is_drawn_has_its_centre_of_mass_in_the_middle() -> None:
    for index, image in enumerate(draw_scribbles(100, IMAGES, LABELS, seed=1)):
        if index % KINDS in (4, 5, 9):  # a digit mirrored, lying or inverted as it stands
            continue
        weights = image / image.sum()
        middle = weights.sum(axis=1) @ np.arange(28), weights.sum(axis=0) @ np.arange(28)
        assert max(abs(value - 14) for value in middle) < 4
        rows, columns = np.nonzero(image)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
