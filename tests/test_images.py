"""Pictures of all kinds become what the network was taught to see, or a clear refusal."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from service.errors import InvalidImage
from service.pictures.convention import centre_of_mass
from service.pictures.images import ImageReader
from tests.pictures import Pixels, encode, on_paper

READER = ImageReader(max_bytes=1 << 20, max_pixels=1_000_000)
LOSSLESS = ["PNG", "BMP", "GIF", "TIFF"]


@pytest.fixture(scope="module")
def seven(digits: tuple[Pixels, Pixels]) -> Pixels:
    """A seven in MNIST's convention."""
    images_, labels = digits
    found: Pixels = images_[labels == 7][0]
    return found


def difference(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Mean absolute difference of two pictures, in grey levels."""
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


@pytest.mark.parametrize("format", LOSSLESS)
def test_a_picture_in_the_convention_passes_bit_for_bit(digits: tuple[Pixels, Pixels], format: str) -> None:
    for digit in digits[0][:50]:
        assert np.array_equal(READER.read(encode(digit, format)), digit)


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255), (230, 60), (40, 210), (128, 255), (140, 20)])
def test_either_polarity_and_any_contrast(seven: Pixels, paper: int, ink: int) -> None:
    assert difference(READER.read(encode(on_paper(seven, paper=paper, ink=ink))), seven) < 12


@pytest.mark.parametrize("scale", [1, 2, 5, 20])
def test_any_size(seven: Pixels, scale: int) -> None:
    assert difference(READER.read(encode(on_paper(seven, scale=scale))), seven) < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_every_mode(seven: Pixels, mode: str) -> None:
    page = on_paper(seven)
    if mode.startswith("I"):
        page = Image.fromarray(np.asarray(page).astype(np.uint16) * 257).convert(mode)
    else:
        page = page.convert(mode)
    format = "TIFF" if mode in ("CMYK", "YCbCr", "I") else "PNG"
    assert difference(READER.read(encode(page, format)), seven) < 17


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats(seven: Pixels, format: str) -> None:
    assert difference(READER.read(encode(on_paper(seven), format)), seven) < 12


@pytest.mark.parametrize("ink", [0, 255])
def test_a_transparent_canvas_is_laid_on_paper_the_ink_stands_out_from(seven: Pixels, ink: int) -> None:
    drawing = np.full((28, 28, 4), ink, np.uint8)
    drawing[..., 3] = seven
    assert difference(READER.read(encode(drawing)), seven) < 12


@pytest.mark.parametrize("ink", [0, 119, 255])
def test_edges_blended_with_a_paper_that_was_made_transparent_tell_which_it_was(seven: Pixels, ink: int) -> None:
    """As programs write GIF files: strokes with the seam of a paper that is there no more."""
    page = np.asarray(on_paper(seven, paper=255 if ink < 128 else 0, ink=ink))
    strokes = np.abs(page.astype(int) - int(page[0, 0])) > 20
    transparent = np.dstack([page, page, page, strokes * np.uint8(255)])
    assert difference(READER.read(encode(transparent)), READER.read(encode(page))) < 4


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (30, 220)])
def test_a_fat_drawing_cut_out_at_its_ink_is_no_blank_page(paper: int, ink: int) -> None:
    page = Image.new("L", (300, 420), paper)
    ImageDraw.Draw(page).ellipse([0, 0, 299, 419], outline=ink, width=110)
    seen = READER.read(encode(page))
    assert seen[14, 13:15].max() < 60 and seen[14].max() > 200, "no ring"


def test_exif_orientation_is_followed(seven: Pixels) -> None:
    turned = on_paper(seven).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    assert difference(READER.read(encode(turned, "JPEG", exif=exif)), seven) < 12


def test_exif_orientation_of_a_16_bit_picture_is_followed(seven: Pixels) -> None:
    turned = Image.fromarray(np.asarray(on_paper(seven).transpose(Image.Transpose.ROTATE_90)).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert difference(READER.read(encode(turned, "PNG", exif=exif)), seven) < 12


def test_paper_with_a_transparent_margin_stays_paper(seven: Pixels) -> None:
    page = np.asarray(on_paper(seven).convert("RGBA")).copy()
    page[:8], page[-8:], page[:, :8], page[:, -8:] = 0, 0, 0, 0
    assert difference(READER.read(encode(page)), seven) < 12


def test_pixels_that_are_no_numbers_do_no_harm(seven: Pixels) -> None:
    page = np.asarray(on_paper(seven), np.float32) / 255
    page[0, 0], page[0, 1] = np.nan, np.inf
    assert READER.read(encode(Image.fromarray(page), "TIFF")).max() == 255


def test_the_first_frame_of_an_animation_counts(seven: Pixels) -> None:
    blank = Image.new("L", (28, 28))
    movie = encode(Image.fromarray(seven), "GIF", save_all=True, append_images=[blank, blank])
    assert difference(READER.read(movie), seven) < 12


def test_the_result_is_in_the_convention(digits: tuple[Pixels, Pixels]) -> None:
    for digit in digits[0][:50]:
        seen = READER.read(encode(on_paper(digit, scale=7)))
        assert seen.shape == (28, 28) and seen.dtype == np.uint8
        assert seen.max() == 255
        rows, columns = np.nonzero(seen)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
        assert all(13.4 < centre < 14.6 for centre in centre_of_mass(seen))


@pytest.mark.parametrize("grey", [0, 90, 255])
def test_a_picture_without_ink_is_blank(grey: int) -> None:
    assert READER.read(encode(np.full((50, 40), grey, np.uint8))).max() == 0


@settings(max_examples=200, deadline=None)
@given(
    side=st.integers(30, 900),
    specks=st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)), min_size=1, max_size=5),
)
def test_specks_on_a_large_page_are_no_reason_to_fail(side: int, specks: list[tuple[float, float]]) -> None:
    page = np.full((side, side), 255, np.uint8)
    for row, column in specks:
        page[int(row * side), int(column * side)] = 0
    assert READER.read(encode(page)).max() == 255


@pytest.mark.parametrize(
    ("dtype", "white"), [(np.uint16, 4095), (np.uint16, 65535), (np.int32, 255), (np.float32, 1.0)]
)
def test_grey_values_of_any_usual_range(seven: Pixels, dtype: type, white: float) -> None:
    page = Image.fromarray((np.asarray(on_paper(seven)) / 255 * white).astype(dtype))
    assert difference(READER.read(encode(page, "TIFF")), seven) < 12


def test_a_large_photo_is_read_from_a_fraction_of_its_pixels(seven: Pixels) -> None:
    reader = ImageReader(max_bytes=4 << 20, max_pixels=16_000_000)
    photo = encode(on_paper(seven, scale=130, margin=100).convert("RGB"), "JPEG")
    assert difference(reader.read(photo), seven) < 12


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_grey_picture_gives_28_by_28(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    seed = data.draw(st.integers(0, 2**32 - 1))
    grey = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    seen = READER.read(encode(grey))
    assert seen.shape == (28, 28) and seen.dtype == np.uint8


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds hardly any pixels."""
    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(b"")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the image is empty: 0 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "the 18 bytes are no image the server can read; it reads PNG, JPEG, WEBP"),
        (b"%PDF-1.7\n%%EOF", "no image the server can read"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no image the server can read"),
        (b"\x00" * (1 << 20) + b"\x00", "the image has 1048577 bytes, the limit is 1048576 (--max-image-bytes)"),
        (png_header(2000, 1000), "2000 x 1000 = 2000000 pixels, the limit is 1000000 (--max-image-pixels)"),
        (png_header(65535, 65535), "far more pixels than the limit of 1000000 (--max-image-pixels)"),
        (png_header(28, 28), "damaged, incomplete or of an unusual kind"),
    ],
)
def test_what_is_no_acceptable_image_is_refused_with_the_reason(data: bytes, text: str) -> None:
    with pytest.raises(InvalidImage) as error:
        READER.read(data)
    assert text in str(error.value)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255), keep=st.floats(0, 1))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    format: str, position: int, value: int, keep: float
) -> None:
    data = bytearray(encode(Image.radial_gradient("L").resize((40, 40)), format))
    data[position % len(data)] = value
    try:
        seen = READER.read(bytes(data[: max(1, round(len(data) * keep))]))
    except InvalidImage as error:
        assert "Traceback" not in str(error) and "PIL" not in str(error)
    else:
        assert seen.shape == (28, 28)


def test_pillow_may_not_open_other_formats() -> None:
    file = io.BytesIO()
    Image.new("L", (28, 28)).save(file, "PPM")
    with pytest.raises(InvalidImage, match="no image the server can read"):
        READER.read(file.getvalue())


def test_16_bits_with_hardly_any_contrast_are_read(seven: Pixels) -> None:
    page = np.asarray(on_paper(seven).convert("L"))
    faint = (30_000 + page.astype(np.uint16) * 2).astype(np.uint16)
    seen = READER.read(encode(Image.fromarray(faint)))
    assert seen.max() == 255
    clear = READER.read(encode(Image.fromarray(page)))
    assert np.abs(seen.astype(int) - clear).mean() < 8
    assert READER.read(encode(Image.fromarray(np.full((60, 60), 30_000, np.uint16)))).max() == 0


@pytest.mark.parametrize("sheet", [0, 255])
def test_a_digit_that_was_cut_out_of_a_sheet_is_read(seven: Pixels, sheet: int) -> None:
    page = 255 - np.asarray(on_paper(seven).convert("L"))
    cut = np.full((*page.shape, 4), sheet, np.uint8)
    cut[..., 3] = 255 - page
    assert np.array_equal(READER.read(encode(Image.fromarray(cut))), READER.read(encode(Image.fromarray(255 - page))))
