"""Image files that are cheap to send and dear to read, made from nothing."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

MIB = 1 << 20
SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A file of this many bytes is within the server's limit.
MUCH = 4 * MIB - 4096


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def zeros(count: int) -> bytes:
    """Zeros, deflated to a thousandth."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(min(MIB, count - done))) for done in range(0, count, MIB)) + packer.flush()


def png(
    width: int = 28, height: int = 28, bits: int = 8, colours: int = 0, *, extra: bytes = b"", pixels: bytes = b""
) -> bytes:
    """A PNG file, black unless its deflated pixels are given.

    Args:
        width: In pixels.
        height: In pixels.
        bits: Of a sample.
        colours: PNG's number of a mode: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        extra: Chunks between the header and the pixels.
        pixels: Content of IDAT.
    """
    if not pixels and width * height < 1 << 25:
        samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
        pixels = zeros(height * (1 + (width * samples * bits + 7) // 8))
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """A file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def jpeg_with(segments: bytes) -> bytes:
    """A small JPEG file with segments at its beginning."""
    file = saved(Image.new("L", (28, 28), 200), "JPEG")
    return file[:2] + segments + file[2:]


def segment(marker: int, content: bytes = b"") -> bytes:
    """A segment of a JPEG file."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def exif(tags: int) -> bytes:
    """EXIF data of many tags, each of one number."""
    entries = b"".join(_tag(number, 3, 1, 1) for number in range(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + bytes(4)


def progressive_jpeg(side: int, extra_scans: int = 0) -> bytes:
    """A progressive JPEG file of one colour, its last scan repeated."""
    file = saved(Image.new("RGB", (side, side), (200, 30, 90)), "JPEG", progressive=True, subsampling=0)
    return file[:-2] + file[file.rfind(b"\xff\xda") : -2] * extra_scans + file[-2:]


def jpeg_in_scans(side: int) -> bytes:
    """A JPEG file that is not progressive and has a scan for each of its three colours."""
    file = saved(Image.new("L", (side, side), 200), "JPEG")
    # The one colour of this frame, in one scan, becomes three.
    frame, scan = file.index(b"\xff\xc0"), file.rindex(b"\xff\xda")
    colours = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    scans = b"".join(segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + file[scan + 10 : -2] for number in (1, 2, 3))
    begin = segment(0xC0, file[frame + 4 : frame + 9] + b"\x03" + colours)
    return file[:frame] + begin + file[frame + 13 : scan] + scans + file[-2:]


def gif_with(blocks: bytes) -> bytes:
    """A small GIF file with blocks before its image."""
    file = saved(Image.new("L", (28, 28), 200), "GIF")
    start = 13 + (3 << ((file[10] & 7) + 1) if file[10] & 0x80 else 0)
    return file[:start] + blocks + file[start:]


def tiff(tags: dict[int, tuple[int, int, int]]) -> bytes:
    """A TIFF file of a header, tags (type, number of values, value) and 2,000 zeros."""
    entries = [_tag(tag, *tags[tag]) for tag in sorted(tags)]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(2004)


def _tag(number: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", number, kind, count, value)


def _tiled(tile_width: int, tile_height: int) -> bytes:
    numbers = {256: 28, 257: 28, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile_width, 323: tile_height, 324: 200, 325: 100}
    return tiff({tag: (4, 1, value) for tag, value in numbers.items()})


def bmp(side: int, pixels: bytes, *, is_packed: bool = False, colours: int = 256) -> bytes:
    """A BMP file with a palette, and with run-length compression or without."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, is_packed, len(pixels), 0, 0, colours, 0)
    start = 14 + len(header) + 4 * colours
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + bytes(4 * colours) + pixels


def webp(width: int, height: int) -> bytes:
    """A WebP file of 28x28 pixels with a canvas of another size in its header."""
    file = bytearray(
        saved(Image.new("RGBA", (28, 28), (1, 2, 3, 4)), "WEBP", lossless=True, exif=b"Exif\0\0" + exif(3))
    )
    start = file.index(b"VP8X") + 12
    file[start : start + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(file)


def webp_head(kind: bytes, width: int, height: int) -> bytes:
    """The beginning of a WebP file, lossy (VP8) or lossless (VP8L), without the signature of its picture."""
    lossless = b"\0" + (width - 1 | height - 1 << 14).to_bytes(4, "little")
    content = lossless if kind == b"VP8L" else bytes(6) + struct.pack("<HH", width, height)
    return b"RIFF" + struct.pack("<I", 12 + len(content)) + b"WEBP" + kind + struct.pack("<I", len(content)) + content


def noisy(side: int) -> Image.Image:
    """A picture that does not compress well."""
    noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    return Image.fromarray(noise).resize((side, side))


# What is refused before anything is decoded, by the ID of docs/robustness.md: name, file, words of the answer.
REFUSED: Sequence[tuple[str, str, Callable[[], bytes], str]] = (
    ("I2", "PNG header of 65535 x 65535", lambda: png(65535, 65535, pixels=b"x"), "--max-image-pixels"),
    ("I2", "WebP canvas of 16383 x 16383", lambda: webp(16383, 16383), "--max-image-pixels"),
    # Whoever asks Pillow first is told that these are no images.
    ("I2", "WebP of 9000 x 9000", lambda: webp_head(b"VP8 ", 9000, 9000), "--max-image-pixels"),
    ("I2", "WebP of 9000 x 9000, lossless", lambda: webp_head(b"VP8L", 9000, 9000), "--max-image-pixels"),
    ("I3", "13000 x 13000 grey PNG", lambda: png(13000, 13000, pixels=zeros(13000 * 13001)), "--max-image-pixels"),
    ("I3", "9400 x 9400 1-bit PNG", lambda: png(9400, 9400, 1, pixels=zeros(9400 * 1176)), "--max-image-pixels"),
    ("I3", "9400 x 9400 RGBA16 PNG", lambda: png(9400, 9400, 16, 6, pixels=zeros(9400 * 75201)), "--max-image-pixels"),
    ("I3", "PNG of 1 x 16,000,000", lambda: png(1, 16_000_000), "a side has at most 20000"),
    ("I4", "PNG of 200,000 tEXt chunks", lambda: png(extra=chunk(b"tEXt", b"k\0v") * 200_000), "more than 5000 chunks"),
    ("I4", "PNG of 330,000 empty chunks", lambda: png(extra=chunk(b"IDAT", b"") * 330_000), "more than 5000 chunks"),
    ("I4", "JPEG of 300 more scans, 16 MP", lambda: progressive_jpeg(4000, 300), "scans; at most 32 are read"),
    ("I4", "JPEG of 130,000 more scans", lambda: progressive_jpeg(64, 130_000), "scans; at most 32 are read"),
    ("I4", "JPEG of 1,000,000 APP3 segments", lambda: jpeg_with(segment(0xE3) * (MUCH // 4)), "more than 5000 chunks"),
    ("I4", "JPEG of 1,000,000 comments", lambda: jpeg_with(segment(0xFE) * (MUCH // 4)), "more than 5000 chunks"),
    ("I4", "JPEG of 4 MiB of padding", lambda: jpeg_with(b"\xff" * MUCH), "more than 5000 chunks"),
    ("I4", "GIF of 800,000 comments", lambda: gif_with(b"!\xfe\x01a\0" * (MUCH // 5)), "more than 5000 chunks"),
    (
        "I4",
        "GIF, one comment of 2,000,000 pieces",
        lambda: gif_with(b"!\xfe" + b"\x01a" * (MUCH // 2)),
        "5000 chunks",
    ),
    ("I4", "GIF of 4 MiB of nothing", lambda: gif_with(bytes(MUCH)), "more than 5000 chunks"),
    ("I4", "TIFF of 60,000 tags", lambda: tiff(dict.fromkeys(range(1, 60000), (1, 100, 8))), "at most 256 are read"),
    ("I4", "TIFF of 200 tags of one value", lambda: tiff(dict.fromkeys(range(1, 200), (1, 2000, 8))), "the tags of"),
    ("I4", "TIFF with a tile of 512 MB", lambda: _tiled(65536, 8192), "tiles of 536870912 pixels"),
    ("I4", "TIFF with LZMA", lambda: tiff({256: (4, 1, 28), 257: (4, 1, 28), 259: (3, 1, 34925)}), "compression 34925"),
    ("I4", "TIFF whose tile's width is a text", lambda: tiff({322: (2, 4, 1)}), "expected a number"),
    ("I4", "BigTIFF", lambda: b"II+\0\x08\0\0\0", "BigTIFF files are not read"),
    ("I4", "BMP of 2,000,000 runs", lambda: bmp(4000, b"\x01\0" * (MUCH // 2), is_packed=True), "run-length"),
    ("I4", "BMP of 65,536 colours", lambda: bmp(28, bytes(784), colours=65536), "a palette of 65536 colours"),
)
# What is read all the same, since all that made it dear is left out.
READ: Sequence[tuple[str, str, Callable[[], bytes]]] = (
    ("I4", "PNG, 64 MB zTXt", lambda: png(extra=chunk(b"zTXt", b"k\0\0" + zeros(64 * MIB)))),
    ("I4", "PNG, 64 MB iCCP", lambda: png(extra=chunk(b"iCCP", b"k\0\0" + zeros(64 * MIB)))),
    ("I4", "PNG, 60 zTXt of 1 MB", lambda: png(extra=chunk(b"zTXt", b"k\0\0" + zeros(MIB - 10)) * 60)),
    ("I4", "PNG, 256 MB IDAT behind 28 x 28", lambda: png(pixels=zeros(256 * MIB))),
    ("I4", "PNG, EXIF of 65,535 tags", lambda: png(extra=chunk(b"eXIf", exif(65535)))),
    ("I4", "JPEG, 60 EXIF segments", lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + exif(5000)) * 60)),
    ("I4", "JPEG, 60 Photoshop segments", lambda: jpeg_with(segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 16000) * 60)),
    ("I4", "WebP, EXIF of 65,535 tags", lambda: saved(Image.new("L", (28, 28)), "WEBP", exif=exif(65535))),
)
# Pictures as large as they may be.
WELCOME: Sequence[tuple[str, str, Callable[[], bytes]]] = (
    ("I3", "JPEG, 16 MP, 3.7 MB, as phones write it", lambda: saved(noisy(4000), "JPEG", quality=80)),
    ("I3", "JPEG, 16 MP, progressive", lambda: progressive_jpeg(4000)),
    ("I3", "JPEG, 16 MP, a scan for each colour", lambda: jpeg_in_scans(4000)),
    ("I3", "WebP, 16 MP", lambda: saved(noisy(4000), "WEBP", quality=50, method=0)),
    ("I3", "PNG, 16 MP, grey", lambda: png(4000, 4000)),
    ("I3", "PNG, 16 MP, 16-bit grey", lambda: png(4000, 4000, 16)),
    ("I3", "PNG, 16 MP, 16-bit RGBA", lambda: png(4000, 4000, 16, 6)),
    ("I3", "GIF, 16 MP", lambda: saved(Image.new("P", (4000, 4000)), "GIF")),
    ("I3", "TIFF, 16 MP, fax", lambda: saved(Image.new("1", (4000, 4000)), "TIFF", compression="group4")),
    (
        "I3",
        "TIFF, 16 MP, float, Deflate",
        lambda: saved(Image.new("F", (4000, 4000)), "TIFF", compression="tiff_deflate"),
    ),
)
