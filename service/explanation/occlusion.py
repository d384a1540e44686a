"""Which pixels an answer hangs on: cover a part of the image, and ask again (Zeiler and Fergus, 2014)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.pictures.images import Pixels

# Twice as wide as a stroke: a smaller square leaves of a stroke what the network needs.
PATCH, STRIDE = 6, 2


@dataclass(frozen=True, slots=True)
class Occlusion:
    """How much the answer hangs on each part of an image.

    Attributes:
        patch: Pixels a side of the square that is covered with paper.
        stride: By how many pixels it moves.
        falls: float32 (rows, columns): how far the probability of the answer falls when the square is covered whose
            top left pixel is (row * stride, column * stride).
    """

    patch: int
    stride: int
    falls: npt.NDArray[np.float32]


def cover(seen: Pixels, digit: int, run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]) -> Occlusion:
    """Cover one square after the other, in one run of the model.

    Args:
        seen: uint8 of shape (28, 28).
        digit: The answer.
        run: Makes probabilities (N, 10) of images, uint8 (N, 1, 28, 28).
    """
    squares = np.lib.stride_tricks.sliding_window_view(seen, (PATCH, PATCH))[::STRIDE, ::STRIDE]
    # Covering paper with paper changes nothing.
    places = np.argwhere(squares.any((2, 3)))
    images = np.repeat(seen[None, None], 1 + len(places), axis=0)
    for image, (top, left) in zip(images[1:, 0], places * STRIDE, strict=True):
        image[top : top + PATCH, left : left + PATCH] = 0
    probabilities = run(images)[:, digit]
    falls = np.zeros(squares.shape[:2], np.float32)
    falls[tuple(places.T)] = probabilities[0] - probabilities[1:]
    return Occlusion(PATCH, STRIDE, falls)
