"""Pictures made from arrays, for the tests that send files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def encode(image: Image.Image | Pixels, format: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


def on_paper(digit: Pixels, scale: int = 8, margin: int = 20, paper: int = 255, ink: int = 0) -> Image.Image:
    """A digit drawn large, in one grey on another."""
    side = 28 * scale
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    page = Image.new("L", (side + margin, side + 2 * margin), paper)
    page.paste(large.point(lambda value: round(paper + (ink - paper) * value / 255)), (margin, margin))
    return page
