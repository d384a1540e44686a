"""Pictures of digits as people have them, made from 28x28 images: the synthetic set that judges a model.

A category is a function (digit, uint8 [28, 28] in MNIST's convention, 0 paper to 255 ink; a random generator) -> the
content of an image file. The same seed gives the same file. Nothing that shapes a model may import this: only
`evaluate` and `report` do.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from model_export.judging.paper import (
    CHALK,
    COLOURED_INK,
    COLOURED_PAPER,
    DARK_PAPER,
    PENCIL,
    Look,
    as_jpeg,
    blank_page,
    clouds,
    photograph,
    sensed,
    written,
)
from model_export.judging.picture_files import FILE_KINDS, as_png
from model_export.judging.strokes import Coverage, Pixels, draw, enlarge, place, skeleton

if TYPE_CHECKING:
    from model_export.data import LabelledImages

Category = Callable[[Pixels, np.random.Generator], bytes]
MOST_PICTURES = {"huge": 20}  # each takes a second to make

PHOTOGRAPHS = {
    "plain": Look(),
    "ball_pen": Look(pen=(0.03, 0.06)),
    "thin_pen": Look(pen=(0.02, 0.035), digit=(0.3, 0.7)),
    "marker": Look(pen=(0.13, 0.17)),
    "pencil": Look(pen=(0.03, 0.06), inks=PENCIL, grain=(0.3, 0.6)),
    "coloured": Look(papers=COLOURED_PAPER, inks=COLOURED_INK),
    "chalk": Look(papers=DARK_PAPER, inks=CHALK, grain=(0.2, 0.7)),
    "ruled": Look(ruling="ruled", pen=(0.04, 0.08)),
    "squared": Look(ruling="squared", pen=(0.04, 0.08)),
    "uneven_light": Look(light=(0.4, 0.7), vignette=(0.2, 0.5)),
    "shadow": Look(shadow=(0.25, 0.55)),
    "glare": Look(glare=(0.4, 0.75)),
    "low_light": Look(exposure=(0.22, 0.4), noise=(0.02, 0.045), blur=(0.8, 1.6), light=(0.2, 0.5)),
    "blurred": Look(blur=(2.0, 4.5), side=(360, 640)),
    "tilted": Look(tilt=(0.06, 0.14), digit=(0.3, 0.5)),
    "coarse_jpeg": Look(quality=(12, 30)),
    "small_file": Look(side=(64, 140), digit=(0.5, 0.75), blur=(0.3, 0.6)),
    "everything": Look(
        pen=(0.03, 0.1),
        ruling="squared",
        shadow=(0.15, 0.45),
        light=(0.2, 0.5),
        vignette=(0.1, 0.3),
        tilt=(0.02, 0.08),
        digit=(0.3, 0.55),
        inks=COLOURED_INK,
        quality=(40, 90),
    ),
}


def synthetic(category: str, digits: LabelledImages, count: int, *, seed: int) -> Iterator[tuple[bytes, int]]:
    """Make `count` pictures of a category from digits drawn without order: the file's content and its label, each.

    Every category draws its own digits, so that taking one away changes no other.
    """
    rng = np.random.default_rng((seed, zlib.crc32(category.encode())))
    for index in rng.choice(len(digits.labels), count, replace=count > len(digits.labels)):
        yield CATEGORIES[category](digits.images[index], rng), int(digits.labels[index])


def scan(digit: Pixels, rng: np.random.Generator, *, dust: bool = False) -> bytes:
    """A grey scan of white paper: even light, slightly skew, sharp; with dust if wanted."""
    side = int(rng.integers(200, 500))
    ink = draw(digit, side * rng.uniform(0.4, 0.75), rng.uniform(0.04, 0.09))
    ink = ndimage.rotate(ink, rng.uniform(-6, 6), order=1, prefilter=False)
    grey = rng.uniform(0.05, 0.3)
    page = written(blank_page((side, side), (0.97, 0.97, 0.97), rng), ink, (grey, grey, grey), 0.1, 0.02, rng)
    if dust:
        page[specks((side, side), rng, count=int(rng.integers(8, 30)), radius=(0.4, 1.8))] = rng.uniform(0.2, 0.6)
    grey_page = sensed(page, 0.5, 0.008, rng)[..., 0]
    return as_png(Image.fromarray(grey_page)) if rng.random() < 0.5 else as_jpeg(grey_page, 85)


def black_and_white_scan(digit: Pixels, rng: np.random.Generator) -> bytes:
    """A fax-like scan: one bit a pixel, ragged edges, a few specks."""
    side = int(rng.integers(150, 400))
    page = place(draw(digit, side * rng.uniform(0.4, 0.75), rng.uniform(0.04, 0.1)), (side, side), rng)
    page += 0.25 * ndimage.gaussian_filter(rng.standard_normal(page.shape), 1.0)
    black = page > 0.5
    black |= specks(page.shape, rng, count=int(rng.integers(0, 12)), radius=(0.4, 0.9))
    return as_png(Image.fromarray(~black))


def specked(digit: Pixels, rng: np.random.Generator) -> bytes:
    """A clean drawing with up to nine dots, none wider than the stroke, beside the digit."""
    side = int(rng.integers(160, 420))
    page = place(draw(digit, side * rng.uniform(0.4, 0.6), rng.uniform(0.06, 0.1)), (side, side), rng)
    near = ndimage.binary_dilation(page > 0, iterations=max(3, side // 40))
    dots = specks(page.shape, rng, count=int(rng.integers(4, 10)), radius=(side * 0.004, side * 0.02))
    return as_png(_grey(np.maximum(page, dots & ~near)))


def canvas(digit: Pixels, rng: np.random.Generator, *, ink: tuple[int, int, int], paper: str) -> bytes:
    """A drawing of 280x280 as a web page sends it.

    Args:
        digit: What is drawn.
        rng: Chooses the pen and the place.
        ink: Its colour.
        paper: "white", "black", or "" where there is none: the drawing is in the alpha channel, and transparent pixels
            have, as a canvas leaves them, the colour black.
    """
    cover = place(draw(digit, rng.uniform(110, 220), rng.uniform(0.05, 0.13)), (280, 280), rng)
    alpha = (cover * 255).round().astype(np.uint8)
    pixels = np.zeros((280, 280, 4), np.uint8)
    pixels[alpha > 0, :3] = ink
    pixels[..., 3] = alpha
    drawing = Image.fromarray(pixels)
    if paper:
        drawing = Image.alpha_composite(Image.new("RGBA", drawing.size, paper), drawing)
    return as_png(drawing)


def alpha_only(digit: Pixels, rng: np.random.Generator) -> bytes:
    """A drawing whose colour is the same everywhere, ink or not: only the alpha channel shows it."""
    cover = place(draw(digit, rng.uniform(110, 220), rng.uniform(0.05, 0.13)), (280, 280), rng)
    drawing = Image.new("RGBA", (280, 280), tuple(int(value) for value in rng.integers(0, 256, 3)))
    drawing.putalpha(_grey(cover, white_ink=True))
    return as_png(drawing)


def placed(digit: Pixels, rng: np.random.Generator, *, size: tuple[float, float], corner: bool = False) -> bytes:
    """A clean drawing, its longer side a share of the page's within `size`, anywhere or pressed into a corner."""
    side = int(rng.integers(240, 900))
    page = np.zeros((side, side), np.float32)
    ink = draw(digit, side * rng.uniform(*size), rng.uniform(0.06, 0.12))
    if corner:
        margin = int(rng.integers(0, max(2, side // 40)))
        top, left = (margin if rng.random() < 0.5 else side - length - margin for length in ink.shape)
        page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    else:
        page = place(ink, (side, side), rng)
    return as_png(_grey(page))


def tight(digit: Pixels, rng: np.random.Generator) -> bytes:
    """A drawing cropped to its ink, as a cutting tool leaves it: the strokes touch the edges."""
    return as_png(_grey(draw(digit, int(rng.integers(30, 300)), rng.uniform(0.07, 0.14))))


def tiny(digit: Pixels, rng: np.random.Generator) -> bytes:
    """A picture of 8x8 to 14x14 pixels, filled by the digit."""
    side = int(rng.integers(8, 15))
    large = Image.fromarray(np.pad(draw(digit, 200), 12))
    height, width = large.height, large.width
    square = Image.new("F", (max(height, width),) * 2)
    square.paste(large, ((square.width - width) // 2, (square.height - height) // 2))
    small = np.asarray(square.resize((side, side), Image.Resampling.BOX))
    return as_png(_grey(small / small.max(), white_ink=rng.random() < 0.5))


def one_pixel_strokes(digit: Pixels, rng: np.random.Generator) -> bytes:
    """28x28 with hard strokes one pixel wide, dark on light or light on dark."""
    line = skeleton(enlarge(digit, 28) > 0.4)
    return as_png(_grey(line.astype(np.float32), white_ink=rng.random() < 0.5))


def off_centre(digit: Pixels, rng: np.random.Generator) -> bytes:
    """28x28 in MNIST's polarity, but smaller or larger than its convention and anywhere in the frame."""
    small = draw(digit, 200)
    scale = rng.uniform(10, 27) / max(small.shape)
    size = max(1, round(small.shape[1] * scale)), max(1, round(small.shape[0] * scale))
    page = place(np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BOX)), (28, 28), rng)
    return as_png(_grey(page, white_ink=True))


def inverted(digit: Pixels, _: np.random.Generator) -> bytes:
    """The 28x28 image itself, black on white."""
    return as_png(Image.fromarray(255 - digit))


def huge(digit: Pixels, rng: np.random.Generator) -> bytes:
    """A photograph of 12 megapixels."""
    shape = (4000, 3000) if rng.random() < 0.5 else (3000, 4000)
    ink = draw(digit, rng.uniform(900, 2000), rng.uniform(0.03, 0.1))
    page = written(blank_page(shape, (0.93, 0.92, 0.9), rng), ink, (0.1, 0.12, 0.3), 0.1, 0.02, rng)
    page *= (0.8 + 0.15 * clouds(shape, rng, cells=3))[..., None]
    page += 0.01 * rng.standard_normal((*shape, 1), np.float32)
    return as_jpeg((page.clip(0, 1) * 255).astype(np.uint8), 80)


def specks(
    shape: tuple[int, ...], rng: np.random.Generator, *, count: int, radius: tuple[float, float]
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Round dots, bool [H, W], anywhere; radii in pixels."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    dots = np.zeros(shape, bool)
    for _ in range(count):
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        dots |= (rows - row) ** 2 + (columns - column) ** 2 <= rng.uniform(*radius) ** 2
    return dots


def _grey(cover: Coverage, *, white_ink: bool = False) -> Image.Image:
    ink = (cover * 255).round().astype(np.uint8)
    return Image.fromarray(ink if white_ink else 255 - ink)


CATEGORIES: Mapping[str, Category] = {
    **{f"photo_{name}": functools.partial(photograph, look=look) for name, look in PHOTOGRAPHS.items()},
    "scan_grey": scan,
    "scan_dusty": functools.partial(scan, dust=True),
    "scan_black_and_white": black_and_white_scan,
    "canvas_black_on_transparent": functools.partial(canvas, ink=(0, 0, 0), paper=""),
    "canvas_white_on_transparent": functools.partial(canvas, ink=(255, 255, 255), paper=""),
    "canvas_blue_on_transparent": functools.partial(canvas, ink=(30, 60, 200), paper=""),
    "canvas_alpha_only": alpha_only,
    "canvas_black_on_white": functools.partial(canvas, ink=(0, 0, 0), paper="white"),
    "canvas_white_on_black": functools.partial(canvas, ink=(255, 255, 255), paper="black"),
    "in_a_corner": functools.partial(placed, size=(0.15, 0.35), corner=True),
    "small_on_a_large_page": functools.partial(placed, size=(0.06, 0.12)),
    "specks_beside": specked,
    "cropped_to_the_ink": tight,
    "tiny": tiny,
    "one_pixel_strokes": one_pixel_strokes,
    "off_centre_28x28": off_centre,
    "inverted_28x28": inverted,
    "huge": huge,
    **{f"file_{name}": kind for name, kind in FILE_KINDS.items()},
}
