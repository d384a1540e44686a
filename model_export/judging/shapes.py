"""Letters, symbols and clothes as drawings: glyphs of every font at hand, and outlines drawn from a few corners.

Knows arrays, fonts and Pillow only. A drawing is the share of each pixel that ink covers, float32 [H, W], 0 to 1,
cropped to its ink.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager, ft2font
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from model_export.judging.strokes import Coverage, crop

SIDE = 200
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Letters that a person may well read as a digit when they stand alone: who answers 0 to an O is not wrong.
LIKE_DIGITS = {"0": "OoQD", "1": "Ilij", "2": "Zz", "4": "y", "5": "Ss", "6": "bG", "8": "B", "9": "gq"}
LETTERS = "".join(sorted(set(ALPHABET) - set("".join(LIKE_DIGITS.values()))))
# Without what is a single stroke, hence like a 1, and without & $ ? and the like, which are built as 8, 5 and 2 are.
SYMBOLS = "#@%+=*~÷±≠≈≤≥∑∏√∞πΔψλ∀∃∴→←↔⇒∩♥♦♣♠★☆✓✗□△♪♫☺©®¶¥½"
# Frames, brackets and calligraphic signs in the places of letters.
NO_TEXT_FONTS = ("LastResort", "STIXNonUni", "STIXSiz", "cmex", "cmsy")
Corners = tuple[tuple[float, float], ...]

# Corners in a square of side 1, clockwise from the top left.
OUTLINES: dict[str, Corners] = {
    "triangle": ((0.5, 0.1), (0.95, 0.9), (0.05, 0.9)),
    "square": ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)),
    "house": ((0.5, 0.05), (0.95, 0.45), (0.95, 0.95), (0.05, 0.95), (0.05, 0.45)),
    "arrow": ((0, 0.38), (0.55, 0.38), (0.55, 0.1), (1, 0.5), (0.55, 0.9), (0.55, 0.62), (0, 0.62)),
    "check mark": ((0.05, 0.5), (0.2, 0.42), (0.38, 0.68), (0.85, 0.08), (0.97, 0.18), (0.4, 0.95)),
    "flash": ((0.55, 0), (0.15, 0.58), (0.45, 0.58), (0.3, 1), (0.85, 0.4), (0.52, 0.4), (0.8, 0)),
    "cross": (
        *((0.37, 0.05), (0.63, 0.05), (0.63, 0.37), (0.95, 0.37), (0.95, 0.63), (0.63, 0.63)),
        *((0.63, 0.95), (0.37, 0.95), (0.37, 0.63), (0.05, 0.63), (0.05, 0.37), (0.37, 0.37)),
    ),
    "star": tuple(
        (0.5 + radius * math.sin(turn * math.pi / 5), 0.5 - radius * math.cos(turn * math.pi / 5))
        for turn in range(10)
        for radius in (0.5 if turn % 2 == 0 else 0.2,)
    ),
    "heart": tuple(
        (
            0.5 + 0.03 * 16 * math.sin(t) ** 3,
            0.45 - 0.03 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)),
        )
        for t in (math.tau * step / 40 for step in range(40))
    ),
    "moon": (
        *((0.5 + 0.45 * math.cos(t / 10), 0.5 + 0.45 * math.sin(t / 10)) for t in range(8, 56)),
        *((0.72 + 0.38 * math.cos(t / 10), 0.5 + 0.38 * math.sin(t / 10)) for t in range(50, 13, -1)),
    ),
}
CLOTHES: dict[str, Corners] = {
    "shirt": (
        *((0.35, 0.05), (0.42, 0.1), (0.58, 0.1), (0.65, 0.05), (0.98, 0.22), (0.9, 0.42)),
        *((0.75, 0.36), (0.76, 0.95), (0.24, 0.95), (0.25, 0.36), (0.1, 0.42), (0.02, 0.22)),
    ),
    "pullover": (
        *((0.36, 0.05), (0.44, 0.1), (0.56, 0.1), (0.64, 0.05), (0.82, 0.13), (0.97, 0.85), (0.82, 0.9)),
        *((0.72, 0.4), (0.73, 0.95), (0.27, 0.95), (0.28, 0.4), (0.18, 0.9), (0.03, 0.85), (0.18, 0.13)),
    ),
    "trousers": ((0.28, 0.03), (0.72, 0.03), (0.8, 0.97), (0.58, 0.97), (0.5, 0.35), (0.42, 0.97), (0.2, 0.97)),
    "dress": (
        *((0.38, 0.03), (0.45, 0.12), (0.55, 0.12), (0.62, 0.03), (0.66, 0.3), (0.6, 0.45)),
        *((0.85, 0.97), (0.15, 0.97), (0.4, 0.45), (0.34, 0.3)),
    ),
    "shoe": (*((0.05, 0.35), (0.3, 0.3), (0.5, 0.5), (0.8, 0.58), (0.97, 0.7), (0.97, 0.82), (0.04, 0.82)),),
    "boot": ((0.12, 0.05), (0.48, 0.05), (0.5, 0.55), (0.88, 0.68), (0.95, 0.95), (0.1, 0.95)),
    "bag": (
        *((0.05, 0.4), (0.27, 0.4), (0.32, 0.12), (0.68, 0.12), (0.73, 0.4), (0.95, 0.4), (0.9, 0.95), (0.1, 0.95)),
    ),
}


@functools.cache
def fonts() -> tuple[tuple[str, frozenset[int]], ...]:
    """Find the text fonts that matplotlib brings and the operating system has: paths, and the characters in each.

    A text font has the letters and the digits; one is taken of those with the same name. What is found differs between
    machines, and so do the drawings made with it.
    """
    bundled = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
    paths = {path.name: str(path) for path in bundled}
    for path in sorted(font_manager.findSystemFonts()):
        paths.setdefault(Path(path).name, path)
    found = []
    for name, path in sorted(paths.items()):
        characters = frozenset(ft2font.FT2Font(path).get_charmap())
        if {*map(ord, ALPHABET + "0123456789")} <= characters and not name.startswith(NO_TEXT_FONTS):
            found.append((path, characters))
    return tuple(found)


def letter(rng: np.random.Generator) -> Coverage:
    """A letter that is not shaped like a digit, of any font, a little turned."""
    path, _ = fonts()[rng.integers(len(fonts()))]
    return _glyph(LETTERS[rng.integers(len(LETTERS))], path, rng)


def symbol(rng: np.random.Generator) -> Coverage:
    """A sign of a font, or a simple shape, filled or as an outline."""
    if rng.random() < 0.4:
        name = list(OUTLINES)[rng.integers(len(OUTLINES))]
        return _polygon(OUTLINES[name], rng, filled=rng.random() < 0.4)
    while True:
        character = SYMBOLS[rng.integers(len(SYMBOLS))]
        if having := [path for path, characters in fonts() if ord(character) in characters]:
            return _glyph(character, having[rng.integers(len(having))], rng)


def garment(rng: np.random.Generator) -> Coverage:
    """The filled outline of a piece of clothing with a pattern in grey."""
    shape = _polygon(list(CLOTHES.values())[rng.integers(len(CLOTHES))], rng, filled=True)
    rows, columns = np.mgrid[: shape.shape[0], : shape.shape[1]]
    angle, wavelength = rng.uniform(0, np.pi), rng.uniform(8, 60)
    stripes = 0.5 + 0.5 * np.sin((np.cos(angle) * rows + np.sin(angle) * columns) * (2 * np.pi / wavelength))
    coarse = Image.fromarray(rng.random((6, 6), np.float32)).resize(shape.shape[::-1], Image.Resampling.BICUBIC)
    pattern = rng.uniform(0.4, 1) - rng.uniform(0, 0.3) * stripes - rng.uniform(0, 0.3) * np.asarray(coarse)
    return np.asarray(shape * np.clip(pattern, 0.12, 1), np.float32)


def _glyph(character: str, path: str, rng: np.random.Generator) -> Coverage:
    canvas = Image.new("L", (2 * SIDE, 2 * SIDE))
    font = ImageFont.truetype(path, SIDE)
    ImageDraw.Draw(canvas).text((SIDE, SIDE), character, fill=255, font=font, anchor="mm")
    turned = canvas.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
    return crop(np.asarray(np.asarray(turned) / 255, np.float32))


def _polygon(corners: Corners, rng: np.random.Generator, *, filled: bool) -> Coverage:
    """Draw corners that stray a little, with round joints; four times as large first, for smooth edges."""
    large = 4 * SIDE
    stray = rng.normal(0, 0.012, (len(corners), 2))
    points = [(float(x), float(y)) for x, y in (np.array(corners) * 0.8 + 0.1 + stray) * large]
    canvas = Image.new("L", (large, large))
    pen = ImageDraw.Draw(canvas)
    if filled:
        pen.polygon(points, fill=255)
        canvas = canvas.filter(ImageFilter.GaussianBlur(large / 80)).point(lambda value: 255 * (value > 127))
    else:
        width = round(large * rng.uniform(0.04, 0.1))
        pen.line([*points, *points[:2]], fill=255, width=width, joint="curve")
    turned = canvas.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    return crop(np.asarray(np.asarray(turned.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255, np.float32))
