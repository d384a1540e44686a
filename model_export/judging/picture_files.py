"""One clean drawing of a digit in every file format and pixel mode that people send.

Knows arrays and Pillow only.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from model_export.judging.strokes import Pixels, draw, place

# The turns that EXIF's orientation tag asks for when a picture is shown, undone when it is stored.
STORED_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATION_TAG = 0x0112


def as_png(image: Image.Image) -> bytes:
    """The content of a PNG file."""
    return _encoded(image, "PNG")


def _encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def drawing(digit: Pixels, rng: np.random.Generator) -> Image.Image:
    """Dark on light or light on dark, grey, 120 to 260 pixels a side."""
    side = int(rng.integers(120, 261))
    ink = draw(digit, side * rng.uniform(0.45, 0.75), rng.uniform(0.06, 0.12))
    page = place(ink, (side, side), rng)
    dark, light = rng.uniform(0, 40), rng.uniform(215, 255)
    if rng.random() < 0.3:
        dark, light = light, dark
    return Image.fromarray((light + (dark - light) * page).round().astype(np.uint8))


def plain(digit: Pixels, rng: np.random.Generator, *, mode: str, format: str, **options: Any) -> bytes:
    """A file of any format and mode that Pillow converts grey to."""
    # A scanner or a drawing program makes its 1-bit files by a threshold; Pillow would dither.
    return _encoded(drawing(digit, rng).convert(mode, dither=Image.Dither.NONE), format, **options)


def with_alpha(digit: Pixels, rng: np.random.Generator, *, mode: str, format: str, **options: Any) -> bytes:
    """Grey ink on nothing: the paper is transparent, the ink's edges are partly so."""
    cover = np.asarray(drawing(digit, rng), np.float32)
    cover = np.abs(cover - np.median(cover))
    image = Image.new("L", cover.shape[::-1], int(rng.choice((0, 60, 255)))).convert(mode)
    image.putalpha(Image.fromarray((cover * (255 / cover.max())).round().astype(np.uint8)))
    return _encoded(image, format, **options)


def transparent_palette(digit: Pixels, rng: np.random.Generator, *, format: str) -> bytes:
    """A palette whose colour of the paper is the transparent one."""
    image = drawing(digit, rng).convert("P")
    return _encoded(image, format, transparency=int(np.median(np.asarray(image))))


def wide(digit: Pixels, rng: np.random.Generator, *, dtype: type[np.generic], full: float, format: str) -> bytes:
    """Grey with more than 8 bits: 0 to `full`."""
    grey = np.asarray(drawing(digit, rng), np.float64) / 255
    return _encoded(Image.fromarray((grey * full).astype(dtype)), format)


def animation(digit: Pixels, rng: np.random.Generator) -> bytes:
    """An animated GIF: the digit first, then two frames of noise of the same size."""
    first = drawing(digit, rng)
    noise = rng.integers(0, 256, (2, first.height, first.width), np.uint8)
    return _encoded(first, "GIF", save_all=True, append_images=[Image.fromarray(frame) for frame in noise])


def turned(digit: Pixels, rng: np.random.Generator) -> bytes:
    """A JPEG file stored turned or mirrored, with the EXIF tag that says how to show it."""
    orientation = int(rng.integers(2, 9))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return _encoded(drawing(digit, rng).transpose(STORED_TURNED[orientation]), "JPEG", exif=exif)


FILE_KINDS: Mapping[str, Callable[[Pixels, np.random.Generator], bytes]] = {
    **{
        name: functools.partial(plain, mode=mode, format=format, **options)
        for name, mode, format, options in (
            ("png_1_bit", "1", "PNG", {}),
            ("png_grey", "L", "PNG", {}),
            ("png_palette", "P", "PNG", {}),
            ("png_rgb", "RGB", "PNG", {}),
            ("png_rgba_opaque", "RGBA", "PNG", {}),
            ("jpeg_grey", "L", "JPEG", {}),
            ("jpeg_rgb", "RGB", "JPEG", {}),
            ("jpeg_cmyk", "CMYK", "JPEG", {}),
            ("jpeg_progressive", "RGB", "JPEG", {"progressive": True}),
            ("webp_lossy", "RGB", "WEBP", {"quality": 60}),
            ("webp_lossless", "RGB", "WEBP", {"lossless": True}),
            ("bmp", "RGB", "BMP", {}),
            ("bmp_1_bit", "1", "BMP", {}),
            ("gif", "P", "GIF", {}),
            ("tiff_grey", "L", "TIFF", {}),
            ("tiff_cmyk", "CMYK", "TIFF", {}),
            ("tiff_1_bit_lzw", "1", "TIFF", {"compression": "tiff_lzw"}),
        )
    },
    "png_grey_alpha": functools.partial(with_alpha, mode="L", format="PNG"),
    "png_rgba": functools.partial(with_alpha, mode="RGB", format="PNG"),
    "webp_alpha": functools.partial(with_alpha, mode="RGB", format="WEBP"),
    "png_palette_transparent": functools.partial(transparent_palette, format="PNG"),
    "gif_transparent": functools.partial(transparent_palette, format="GIF"),
    "png_16_bit": functools.partial(wide, dtype=np.uint16, full=65535, format="PNG"),
    "tiff_16_bit": functools.partial(wide, dtype=np.uint16, full=65535, format="TIFF"),
    "tiff_float": functools.partial(wide, dtype=np.float32, full=1, format="TIFF"),
    "gif_animated": animation,
    "jpeg_exif_turned": turned,
}
