"""The pictures on the way from an image file to 28x28 pixels, kept for people who want to see it.

Whoever reads a picture hands each intermediate one to a `Note`. Ordinarily
nobody looks; `Steps` keeps them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[Any]
Note = Callable[[str, Picture], None]

LARGEST_SIDE = 256
CAPTIONS = {
    "picture": "The picture as it was sent, upright.",
    "grey": "One grey value for each pixel, mixed from the colours so that ink and paper differ most.",
    "paper": "The paper alone, with its light and shadows: what is left when every stroke is filled up from its sides.",
    "contrast": "How much each pixel stands out from its paper. Ink is light from here on.",
    "unruled": "The lines of ruled or squared paper are taken away.",
    "ink": "The ink of the digit. Dust, smudges and what lies at the border are left out.",
    "stroke": "Cut out and enlarged; thin strokes are widened, thick ones narrowed.",
    "seen": "What the network sees: 28 x 28 pixels, the longer side of the digit 20 of them, its centre of mass in "
    "the middle.",
}


def unnoted(name: str, picture: Picture) -> None:
    """Nobody looks."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step, and the picture after it.

    Attributes:
        name: One of `CAPTIONS`.
        caption: A sentence for people.
        png: A PNG file of at most 256 pixels a side.
    """

    name: str
    caption: str
    png: bytes


class Steps:
    """Keeps the pictures it is called with; a step that changed nothing is none.

    Attributes:
        taken: The steps so far.
    """

    def __init__(self) -> None:
        """Start without a step."""
        self.taken: list[Step] = []
        self._before: Picture | None = None

    def __call__(self, name: str, picture: Picture) -> None:
        """Keep a picture.

        Args:
            name: One of `CAPTIONS`.
            picture: (height, width) or (height, width, 3); uint8, or float32 from 0 to any largest value.
        """
        if name == "seen" or self._before is None or not np.array_equal(picture, self._before):
            self.taken.append(Step(name, CAPTIONS[name], _png(picture)))
        self._before = picture


def _png(picture: Picture) -> bytes:
    if picture.dtype != np.uint8:
        picture = (picture * (255 / max(float(picture.max()), 1e-6))).round().astype(np.uint8)
    image = Image.fromarray(picture)
    if (longer_side := max(image.size)) > LARGEST_SIDE:
        scale = LARGEST_SIDE / longer_side
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(size, Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
