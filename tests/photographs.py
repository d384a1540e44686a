"""Photographs of digits on paper, simulated, for the tests of what the service reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from tests.pictures import Pixels

Colour = tuple[int, int, int]
Field = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a photograph shows besides the digit, and how it was taken.

    Attributes:
        paper: Colour of the paper.
        ink: Colour of the ink.
        side: Side of the square that the digit is drawn in, of a picture of 400x300.
        place: Row and column of that square's corner.
        darkest: Light at the far corner, as a share of the light at the near one.
        shadow: Light in the shadow that covers half of the picture.
        glare: Levels that a reflection adds in the middle of its spot.
        rules: Distance of the lines of squared paper; 0 for none.
        table: Width of the dark table around the sheet.
        blur: Radius of the camera's blur.
        grain: Standard deviation of the noise.
    """

    paper: Colour = (235, 232, 222)
    ink: Colour = (35, 40, 60)
    side: int = 190
    place: tuple[int, int] = (40, 120)
    darkest: float = 0.6
    shadow: float = 1.0
    glare: float = 0.0
    rules: int = 0
    table: int = 0
    blur: float = 0.8
    grain: float = 3.0


def photograph(digit: Pixels | Image.Image | None, scene: Scene, seed: int = 0) -> Image.Image:
    """An RGB photograph of 400x300 pixels of a digit in light ink on dark; of blank paper for None."""
    width, height = 400, 300
    rng = np.random.default_rng(seed)
    page = Image.new("RGB", (width, height), scene.paper)
    draw = ImageDraw.Draw(page)
    for line in range(scene.rules, width if scene.rules else 0, max(scene.rules, 1)):
        draw.line([(line, 0), (line - 12, height)], fill=(150, 170, 205))
        draw.line([(0, line), (width, line + 12)], fill=(150, 170, 205))
    if digit is not None:
        stencil = Image.fromarray(digit) if isinstance(digit, np.ndarray) else digit
        stencil = stencil.resize((scene.side, scene.side), Image.Resampling.BICUBIC)
        page.paste(scene.ink, scene.place[::-1], stencil)
    if scene.table:
        sheet = page.resize((width - 2 * scene.table, height - 2 * scene.table))
        page = Image.new("RGB", (width, height), (60, 45, 38))
        page.paste(sheet, (scene.table, scene.table))
        page = page.rotate(5, Image.Resampling.BICUBIC, fillcolor=(60, 45, 38))
    taken = np.asarray(page.filter(ImageFilter.GaussianBlur(scene.blur)), np.float32) * _light(scene, height, width)
    row, column = np.mgrid[:height, :width]
    spot = scene.glare * np.exp(-(((row - 60) ** 2 + (column - 70) ** 2) / 1800))
    taken = taken + spot[..., None] + rng.normal(0, scene.grain, taken.shape)
    return Image.fromarray(taken.clip(0, 255).astype(np.uint8))


def _light(scene: Scene, height: int, width: int) -> Field:
    row, column = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    light = 1 - (1 - scene.darkest) * (row + column) / 2
    shaded = 1 / (1 + np.exp(-(column + 0.4 * row - 0.7) / 0.01))
    return np.asarray((light * (1 - (1 - scene.shadow) * shaded))[..., None], np.float32)


# Corners of lines through ten digits, in a square of 20x20, column before row.
LINES = [
    [(10, 1), (5, 4), (4, 10), (5, 16), (10, 19), (15, 16), (16, 10), (15, 4), (10, 1)],
    [(8, 3), (10, 1), (10, 19)],
    [(4, 5), (7, 1), (13, 1), (15, 5), (13, 9), (4, 18), (16, 18)],
    [(4, 3), (9, 1), (14, 3), (14, 7), (9, 9), (15, 12), (15, 16), (10, 19), (4, 17)],
    [(12, 19), (12, 1), (3, 13), (17, 13)],
    [(15, 1), (6, 1), (5, 9), (11, 8), (15, 12), (14, 17), (9, 19), (4, 17)],
    [(14, 1), (8, 4), (5, 11), (6, 17), (11, 19), (15, 16), (14, 11), (10, 10), (6, 13)],
    [(4, 2), (16, 2), (9, 19)],
    [(10, 9), (6, 6), (7, 2), (13, 2), (14, 6), (10, 9), (5, 14), (7, 18), (13, 18), (15, 14), (10, 9)],
    [(15, 7), (10, 10), (6, 8), (6, 3), (10, 1), (14, 3), (15, 7), (13, 13), (12, 19)],
]


def drawn(digit: int, side: int, pen: int) -> Image.Image:
    """A digit drawn with a pen of so many pixels, 255 on 0, in a square of so many."""
    page = Image.new("L", (side, side))
    scale = (side - pen - 2) / 20
    corners = [(column * scale + pen / 2 + 1, row * scale + pen / 2 + 1) for column, row in LINES[digit]]
    ImageDraw.Draw(page).line(corners, 255, pen, "curve" if pen > 2 else None)
    return page
