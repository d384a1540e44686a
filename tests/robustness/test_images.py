"""I1 to I7: image files that are hostile, odd or huge. What they cost is printed by `measure_images`."""

from __future__ import annotations

import asyncio
import io
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from service.errors import InvalidImage
from service.observing.metrics import Metrics
from service.pictures.decoding import Decoder
from service.pictures.envelope import is_read_by_rows, webp_size, without_ballast
from service.pictures.images import ImageReader
from service.settings import Settings
from tests.pictures import Pixels, encode
from tests.robustness.bombs import (
    READ,
    REFUSED,
    WELCOME,
    chunk,
    exif,
    jpeg_in_scans,
    jpeg_with,
    png,
    progressive_jpeg,
    saved,
    segment,
    tiff,
)

READER = ImageReader(Settings().max_image_bytes, Settings().max_image_pixels)
PNG = encode(np.zeros((28, 28), np.uint8))
JPEG = encode(np.full((28, 28), 200, np.uint8), "JPEG")


@pytest.mark.parametrize(
    "file",
    [
        b"",
        PNG[:40],
        JPEG[:200],
        PNG.replace(b"IDAT", b"IDAT\0", 1),
        PNG[:-13] + b"bad" + PNG[-10:],
        png(0, 28),
        bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8)),
        b"text\n",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"/>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n",
        b"%PDF-1.7\n",
        b"II*\0",
        b"MM\0*\0\0\0\x08",
        b"GIF89a",
        b"BM",
        b"PK\x03\x04",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBPVP8X",
    ],
)
def test_i1_what_is_no_image_is_refused_in_plain_words(file: bytes) -> None:
    with pytest.raises(InvalidImage) as error:
        READER.read(file)
    assert not any(word in str(error.value) for word in ("PIL", "Error", "Traceback", "/", "0x"))


@pytest.mark.parametrize(("make", "words"), [pytest.param(*row[2:], id=f"{row[0]}: {row[1]}") for row in REFUSED])
def test_i2_i3_i4_bombs_are_refused_before_they_are_decoded(make: Callable[[], bytes], words: str) -> None:
    """Nothing near what they claim is allocated by Python or numpy; `measure_images` counts the rest."""
    file = make()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidImage) as error:
            READER.read(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert words in str(error.value)
    assert peak < 8 << 20


@pytest.mark.parametrize("make", [pytest.param(row[2], id=f"{row[0]}: {row[1]}") for row in READ])
def test_i4_ballast_is_left_out_and_the_picture_read(make: Callable[[], bytes]) -> None:
    assert READER.read(make()).shape == (28, 28)


@pytest.mark.parametrize("make", [pytest.param(row[2], id=f"{row[0]}: {row[1]}") for row in WELCOME])
def test_i3_pictures_within_the_limits_are_welcome(make: Callable[[], bytes]) -> None:
    assert READER.read(make()).shape == (28, 28)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": exif(1)}, {"lossless": True, "exif": exif(1)}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_i2_the_size_of_a_webp_file_is_known_without_pillow(mode: str, options: dict[str, Any]) -> None:
    picture = Image.new(mode, (301, 40), 7)
    assert webp_size(saved(picture, "WEBP", **options)) == (301, 40)
    assert webp_size(saved(picture, "WEBP", save_all=True, append_images=[picture], **options)) == (301, 40)
    assert webp_size(saved(picture, "PNG")) is None


def test_i3_an_ordinary_file_is_not_copied() -> None:
    assert without_ballast(PNG) is PNG


def test_i4_a_bmp_file_of_os2_has_a_shorter_header() -> None:
    """What a newer one says of the palette is the palette itself here: two colours, of which the second is white."""
    head = struct.pack("<IHHI", 32 + 28 * 4, 0, 0, 32) + struct.pack("<IHHHH", 12, 28, 28, 1, 1)
    paper = READER.read(b"BM" + head + b"\x14\x14\0\0\xff\xff" + b"\xff\xff\xff\xf0" * 28)
    assert not paper.any()


def test_i4_what_a_picture_needs_is_kept() -> None:
    transparent = encode(Image.new("P", (28, 28)), transparency=0)
    upright = exif(1).replace(b"\0\0\x03\0\x01\0\0\0\x01\0", b"\x12\x01\x03\0\x01\0\0\0\x06\0")
    file = transparent[:33] + chunk(b"tEXt", b"k\0v") + chunk(b"eXIf", upright) + transparent[33:]
    with Image.open(io.BytesIO(without_ballast(file))) as image:
        assert image.has_transparency_data
        assert image.getexif()[0x0112] == 6
        assert "k" not in image.info
    file = jpeg_with(segment(0xE2, b"profile") + segment(0xE1, b"Exif\0\0" + upright) + segment(0xFE, b"comment"))
    with Image.open(io.BytesIO(without_ballast(file))) as image:
        assert image.getexif()[0x0112] == 6
        assert not image.info.keys() & {"icc_profile", "comment"}


def test_i2_no_text_of_a_file_stays_in_pythons_list_of_warnings() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        reader = ImageReader(READER.max_bytes, READER.max_pixels)
        with pytest.raises(InvalidImage):
            reader.read(REFUSED[2][2]())
    assert not seen


def test_s1_libtiff_says_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """It would wait for whoever reads that, and once 900 such files had come, no other was read."""
    with pytest.raises(InvalidImage):
        READER.read(tiff({256: (3, 1, 28), 257: (3, 1, 28), 259: (3, 1, 4), 284: (3, 1, 57)}))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_i3_only_a_jpeg_with_all_its_colours_in_one_scan_is_read_by_rows(mode: str) -> None:
    """Any other takes 2 bytes a pixel and colour; what follows the picture in the file, as of some phones, does not."""
    photo = saved(Image.new(mode, (64, 64)), "JPEG")
    assert is_read_by_rows(photo) and is_read_by_rows(photo + photo)
    assert not is_read_by_rows(saved(Image.new(mode, (64, 64)), "JPEG", progressive=True))
    assert not is_read_by_rows(jpeg_in_scans(64))


@pytest.mark.parametrize("file", [png(2100, 2100), progressive_jpeg(2100), jpeg_in_scans(2100)])
async def test_i3_large_pictures_are_decoded_one_at_a_time(file: bytes) -> None:
    """Small ones pass meanwhile: the lock is held by the test as a large picture would hold it."""
    reader = ImageReader(READER.max_bytes, READER.max_pixels)
    decoder = Decoder(reader, threads=2, max_images=10, observer=Metrics())
    with reader._large:
        large = asyncio.create_task(decoder.read([file]))
        await decoder.read([PNG])
        phone_photo = encode(np.zeros((2100, 2100), np.uint8), "JPEG")
        for _ in range(10):
            await decoder.read([phone_photo])
        assert not large.done()
    assert np.array_equal(np.array((await large)[0]), np.zeros((28, 28), np.uint8))
    decoder.close()


def test_i5_16_bit_grey_is_scaled_and_not_clamped() -> None:
    grey = np.zeros((28, 28), np.uint16)
    grey[4:24, 12:16] = 65535
    grey[10, 13] = 40000
    seen = READER.read(encode(Image.fromarray(grey)))
    assert seen[10, 13] in (155, 156) and seen[11, 13] == 255 and seen[0, 0] == 0


def bar() -> npt.NDArray[np.uint8]:
    """A picture in the convention that is the same in no other orientation: an upright 7 of two strokes."""
    seven = np.zeros((28, 28), np.uint8)
    seven[4:7, 8:20] = 255
    seven[4:24, 14:17] = 255
    return READER.read(encode(np.kron(255 - seven, np.ones((4, 4), np.uint8))))


# Written as the mode; every one of them stands for the same black strokes on white.
MODES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "1": lambda page: page.convert("1"),
    "L": lambda page: page,
    "P": lambda page: page.convert("P"),
    "LA": lambda page: page.convert("LA"),
    "RGB": lambda page: page.convert("RGB"),
    "RGBA": lambda page: page.convert("RGBA"),
    "RGBA, transparent paper": lambda page: Image.merge("RGBA", (*[page.point(lambda _: 0)] * 3, page.point(_inverse))),
    "I;16": lambda page: Image.fromarray(np.asarray(page).astype(np.uint16) * 257),
}


def _inverse(value: int) -> int:
    return 255 - value


@pytest.mark.parametrize("mode", MODES)
def test_i6_every_mode_gives_the_same_pixels(mode: str) -> None:
    page = Image.fromarray(np.kron(255 - bar(), np.ones((4, 4), np.uint8)))
    page = page.point(lambda value: 255 if value > 127 else 0)
    assert np.array_equal(READER.read(encode(MODES[mode](page))), READER.read(encode(page)))


def test_i6_cmyk_too() -> None:
    page = Image.fromarray(np.kron(255 - bar(), np.ones((4, 4), np.uint8)))
    assert np.array_equal(READER.read(encode(page.convert("CMYK"), "TIFF")), READER.read(encode(page.convert("RGB"))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_i6_every_orientation_is_turned_upright(orientation: int, format: str) -> None:
    """How the eight are undone is written here once more, as EXIF 2.32 has it."""
    page = np.kron(255 - bar(), np.ones((4, 4), np.uint8))
    stored = {
        1: page,
        2: page[:, ::-1],
        3: page[::-1, ::-1],
        4: page[::-1],
        5: page.T,
        6: page.T[::-1],
        7: page.T[::-1, ::-1],
        8: page.T[:, ::-1],
    }[orientation]
    tags = Image.Exif()
    tags[0x0112] = orientation
    seen = READER.read(encode(np.ascontiguousarray(stored), format, exif=tags))
    assert np.abs(seen.astype(int) - READER.read(encode(page)).astype(int)).mean() < 3


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_i6_of_an_animation_the_first_frame_is_read(format: str) -> None:
    first = Image.fromarray(255 - bar())
    others = [Image.new("L", (28, 28), grey) for grey in (10, 250)]
    options = {"lossless": True} if format == "WEBP" else {}
    file = encode(first, format, save_all=True, append_images=others, **options)
    assert np.array_equal(READER.read(file), READER.read(encode(first)))


@pytest.mark.parametrize("size", [(1, 1), (1, 2048), (2048, 1), (2, 3), (28, 28), (20_000, 1)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_i7_the_smallest_and_the_longest_pictures(size: tuple[int, int], grey: int) -> None:
    seen: Pixels = READER.read(encode(Image.new("L", size, grey)))
    assert seen.shape == (28, 28) and seen.dtype == np.uint8
