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
        digit_side: Side of the square of 28x28 pixels that the digit lies in, in pixels of 400x300.
        place: Row and column of that square's corner.
        stroke: Level of the enlarged digit above which there is ink; low values make fat strokes.
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
    digit_side: int = 190
    place: tuple[int, int] = (40, 120)
    stroke: float = 110
    darkest: float = 0.6
    shadow: float = 1.0
    glare: float = 0.0
    rules: int = 0
    table: int = 0
    blur: float = 0.8
    grain: float = 3.0


def photograph(digit: Pixels | None, scene: Scene, seed: int = 0) -> Image.Image:
    """An RGB photograph of 400x300 pixels; of blank paper for None."""
    width, height = 400, 300
    rng = np.random.default_rng(seed)
    page = Image.new("RGB", (width, height), scene.paper)
    draw = ImageDraw.Draw(page)
    for line in range(scene.rules, width if scene.rules else 0, max(scene.rules, 1)):
        draw.line([(line, 0), (line - 12, height)], fill=(150, 170, 205))
        draw.line([(0, line), (width, line + 12)], fill=(150, 170, 205))
    if digit is not None:
        side = (scene.digit_side, scene.digit_side)
        large = Image.fromarray(digit).resize(side, Image.Resampling.BICUBIC)
        stencil = large.filter(ImageFilter.GaussianBlur(side[0] / 60)).point(lambda v: 255 * (v > scene.stroke))
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
