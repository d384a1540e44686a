"""The synthetic set: every category gives a file that can be read, of the kind it claims, the same for a seed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from model_export.judging.picture_files import ORIENTATION_TAG, drawing, turned
from model_export.judging.pictures import CATEGORIES, MOST_PICTURES, synthetic
from tests.training import small_set

DIGITS = small_set("t10k", 60)
# Format and mode of each file_* category, as Pillow reads it.
FILES = {
    "png_1_bit": ("PNG", "1"),
    "png_grey": ("PNG", "L"),
    "png_palette": ("PNG", "P"),
    "png_rgb": ("PNG", "RGB"),
    "png_rgba_opaque": ("PNG", "RGBA"),
    "jpeg_grey": ("JPEG", "L"),
    "jpeg_rgb": ("JPEG", "RGB"),
    "jpeg_cmyk": ("JPEG", "CMYK"),
    "jpeg_progressive": ("JPEG", "RGB"),
    "webp_lossy": ("WEBP", "RGB"),
    "webp_lossless": ("WEBP", "RGB"),
    "bmp": ("BMP", "RGB"),
    "bmp_1_bit": ("BMP", "1"),
    "gif": ("GIF", "P"),
    "tiff_grey": ("TIFF", "L"),
    "tiff_cmyk": ("TIFF", "CMYK"),
    "tiff_1_bit_lzw": ("TIFF", "1"),
    "png_grey_alpha": ("PNG", "LA"),
    "png_rgba": ("PNG", "RGBA"),
    "webp_alpha": ("WEBP", "RGBA"),
    "png_palette_transparent": ("PNG", "P"),
    "gif_transparent": ("GIF", "P"),
    "png_16_bit": ("PNG", "I;16"),
    "tiff_16_bit": ("TIFF", "I;16"),
    "tiff_float": ("TIFF", "F"),
    "gif_animated": ("GIF", "P"),
    "jpeg_exif_turned": ("JPEG", "L"),
}


def made(category: str, count: int = 1, seed: int = 1) -> list[tuple[bytes, int]]:
    return list(synthetic(category, DIGITS, count, seed=seed))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("category", sorted(CATEGORIES.keys() - {"huge"}))
def test_a_category_is_readable_shows_something_and_repeats_itself(category: str) -> None:
    ((data, label),) = found = made(category)
    assert found == made(category) != made(category, seed=2)
    assert label in range(10)
    image = opened(data)
    pixels = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("RGBA"), np.float64)
    contrast = np.ptp(pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1), axis=0).max() / pixels.max()
    assert contrast > 0.2


def test_every_file_kind_has_the_format_and_mode_it_is_named_for() -> None:
    assert {f"file_{name}" for name in FILES} == {name for name in CATEGORIES if name.startswith("file_")}
    found = {name: opened(made(f"file_{name}")[0][0]) for name in FILES}
    assert {name: (image.format, image.mode) for name, image in found.items()} == FILES
    assert found["jpeg_progressive"].info["progressive"]
    assert found["tiff_1_bit_lzw"].info["compression"] == "tiff_lzw"
    assert getattr(found["gif_animated"], "n_frames") == 3  # noqa: B009  # only some formats have it
    assert "transparency" in found["png_palette_transparent"].info
    assert "transparency" in found["gif_transparent"].info


def test_a_turned_file_is_upright_when_shown_as_it_says() -> None:
    seen = set()
    for seed in range(30):
        image = opened(turned(DIGITS.images[0], np.random.default_rng(seed)))
        rng = np.random.default_rng(seed)
        rng.integers(2, 9)
        upright = np.asarray(drawing(DIGITS.images[0], rng), np.float64)
        shown = np.asarray(ImageOps.exif_transpose(image), np.float64)
        assert np.abs(shown - upright).mean() < 3
        seen.add(image.getexif()[ORIENTATION_TAG])
    assert seen == set(range(2, 9))


def test_canvas_drawings_are_where_they_say() -> None:
    for name, channels in (("black", (0, 0, 0)), ("white", (255, 255, 255))):
        pixels = np.asarray(opened(made(f"canvas_{name}_on_transparent")[0][0]))
        assert pixels.shape == (280, 280, 4)
        alpha = pixels[..., 3]
        assert (pixels[alpha > 0, :3] == channels).all()
        assert (alpha == 0).mean() > 0.5 and (alpha == 255).any()
    alone = np.asarray(opened(made("canvas_alpha_only")[0][0]))
    assert np.ptp(alone[..., :3].reshape(-1, 3), axis=0).max() == 0 < np.ptp(alone[..., 3])


def test_sizes_are_those_of_the_names() -> None:
    assert all(8 <= opened(data).width <= 14 for data, _ in made("tiny", 10))
    for category in ("one_pixel_strokes", "off_centre_28x28", "inverted_28x28"):
        assert all(opened(data).size == (28, 28) for data, _ in made(category, 3))
    data, _ = made("huge")[0]
    assert opened(data).width * opened(data).height == 12_000_000
    assert len(data) < 4 << 20
    assert MOST_PICTURES.keys() <= CATEGORIES.keys()


def test_more_pictures_than_digits_can_be_made() -> None:
    assert len(made("inverted_28x28", 100)) == 100
