"""What surrounds the picture in an image file: looked at, and mostly left out, before Pillow reads the file.

Pillow parses markers, chunks, blocks and tags in Python, and follows sizes
that a file of a few bytes may claim. So a file of 4 MiB made of them would
hold a core for seconds, and a progressive JPEG of many empty scans for
minutes. What an orientation and a picture need stays; the rest goes, and so
does a file with more of it than any program writes.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator

from service.errors import InvalidImage

# Files of 4 MiB have about 500 chunks, and before the picture fewer than 50 segments or blocks.
MOST_PARTS = 5000
# Programs write about ten scans; a picture of 16 million pixels takes 20 ms for each.
MOST_SCANS = 32
MOST_TAGS = 256
LARGEST_TILE_PIXELS = 1 << 20
LARGEST_EXIF_BYTES = 1 << 16
# Of a BMP file: the size of a header without what is looked at here, and a palette.
OS2_BMP = (12).to_bytes(4, "little")
MOST_COLOURS = 256

PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
JPEG_SCAN = 0xDA
# Size and colours of a picture that is not progressive.
JPEG_SEQUENTIAL = {0xC0, 0xC1}
# JFIF, EXIF or XMP, and Adobe's, which tells how the colours are written.
JPEG_APPLICATIONS = {0xE0, 0xE1, 0xEE}
TIFF_WIDTH, TIFF_HEIGHT, TIFF_COMPRESSION, TIFF_TILE_WIDTH, TIFF_TILE_HEIGHT = 256, 257, 259, 322, 323
TIFF_NUMBERS = {TIFF_WIDTH, TIFF_HEIGHT, TIFF_COMPRESSION, TIFF_TILE_WIDTH, TIFF_TILE_HEIGHT}
# None, fax, LZW, JPEG, Deflate (by two numbers) and PackBits.
TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32946, 32773}
# Bytes of a value, by its type's number; unknown types are taken for the widest.
TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


def without_ballast(file: bytes) -> bytes:
    """An image file with what its picture needs, which is the file itself if there is nothing else.

    Raises:
        InvalidImage: Its envelope is damaged, or built to cost time or memory.
    """
    try:
        return next((look(file) for magic, look in LOOKS if file.startswith(magic)), file)
    except IndexError:
        raise InvalidImage(f"the image file of {len(file)} bytes ends before its picture begins") from None


def webp_size(file: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP file claims, None of any other: Pillow makes room for its pixels by opening it."""
    if not (file.startswith(b"RIFF") and file[8:12] == b"WEBP"):
        return None
    if file[12:16] == b"VP8X":
        return 1 + int.from_bytes(file[24:27], "little"), 1 + int.from_bytes(file[27:30], "little")
    if file[12:16] == b"VP8L":
        sides = int.from_bytes(file[21:25], "little")
        return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    return int.from_bytes(file[26:28], "little") & 0x3FFF, int.from_bytes(file[28:30], "little") & 0x3FFF


def is_read_by_rows(file: bytes) -> bool:
    """Whether a JPEG file, without ballast, is decoded a few rows at a time.

    One that brings its colours in scans of their own, as a progressive one
    does, takes 2 bytes a pixel and colour, at whatever fraction it is decoded.
    """
    colours = 0
    for marker, start, _ in _segments(file):
        if marker in JPEG_SEQUENTIAL:
            colours = file[start + 9]
    return colours == file[start + 4]


def _png(file: bytes) -> bytes:
    """Chunks: length (4 bytes), kind (4), content, checksum (4)."""
    view = memoryview(file)
    parts, position, chunks = [view[:8]], 8, 0
    while position < len(file):
        chunks += 1
        _check_parts(chunks)
        length, kind = int.from_bytes(view[position : position + 4]), bytes(view[position + 4 : position + 8])
        end = position + 12 + length
        if kind in PNG_CHUNKS or (kind == b"eXIf" and length <= LARGEST_EXIF_BYTES):
            # Pillow does not look at those of pixels, and decodes damaged ones to something.
            if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
                raise InvalidImage(f"the PNG file is damaged: the checksum of its {kind.decode()} is wrong")
            parts.append(view[position:end])
        if kind == b"IEND":
            break
        position = end
    return b"".join(parts) if len(parts) <= chunks else file


def _jpeg(file: bytes) -> bytes:
    view, applications = memoryview(file), Counter[int]()
    parts = [view[:2]]
    for marker, start, end in _segments(file):
        applications[marker] += 1
        is_application, is_comment = 0xE0 <= marker <= 0xEF, marker == 0xFE
        if not is_comment and (not is_application or (marker in JPEG_APPLICATIONS and applications[marker] <= 2)):
            parts.append(view[start:end])
    # Within a scan 0xFF is never followed by 0xDA.
    if (scans := file.count(b"\xff\xda", start)) > MOST_SCANS:
        raise InvalidImage(f"the JPEG file has {scans} scans; at most {MOST_SCANS} are read")
    return b"".join(parts)


def _segments(file: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of a JPEG's segments, which are 0xFF, marker, length (2 bytes, itself included), content.

    The last one is the first scan, with all that follows it.
    """
    position, seen = 2, 0
    while file[position : position + 2] != b"\xff\xda":
        seen += 1
        _check_parts(seen)
        marker = file[position + 1]
        # Anything between segments, and padding, is skipped as decoders do.
        if file[position] != 0xFF or marker in (0x00, 0xFF):
            position += 1
            continue
        length = 0 if 0xD0 <= marker <= 0xD9 or marker == 0x01 else int.from_bytes(file[position + 2 : position + 4])
        yield marker, position, position + 2 + length
        position += 2 + length
    yield JPEG_SCAN, position, len(file)


def _gif(file: bytes) -> bytes:
    """Blocks, each a chain of pieces of at most 255 bytes, before the first image."""
    position = 13 + (3 << ((file[10] & 7) + 1) if file[10] & 0x80 else 0)
    view = memoryview(file)
    parts, seen = [view[:position]], 0
    while file[position] != 0x2C:
        start = position
        position += 1
        if file[start] == 0x21:
            position += 1
            while size := file[position]:
                position += 1 + size
                seen += 1
                _check_parts(seen)
            position += 1
            if file[start + 1] == 0xF9:
                parts.append(view[start:position])
        seen += 1
        _check_parts(seen)
    parts.append(view[position:])
    return b"".join(parts)


def _tiff(file: bytes) -> bytes:
    """Tags of 12 bytes: number (2), type (2), how many values (4), and the value or where it is (4)."""
    order = "little" if file.startswith(b"II") else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(file[at : at + size], order)  # type: ignore[arg-type]

    start = number(4, 4)
    if (count := number(start, 2)) > MOST_TAGS:
        raise InvalidImage(f"the TIFF file has {count} tags; at most {MOST_TAGS} are read")
    tags, elsewhere = {}, 0
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values = number(entry, 2), number(entry + 2, 2), number(entry + 4, 4)
        size = values * TIFF_BYTES.get(kind, 8)
        elsewhere += size if size > 4 else 0
        if tag in TIFF_NUMBERS:
            if kind not in (3, 4) or values != 1:
                raise InvalidImage(f"tag {tag} of the TIFF file has {values} values of type {kind}; expected a number")
            tags[tag] = number(entry + 8, TIFF_BYTES[kind])
    if elsewhere > len(file):
        raise InvalidImage(f"the tags of the TIFF file claim {elsewhere} bytes of values, the file has {len(file)}")
    if (compression := tags.get(TIFF_COMPRESSION, 1)) not in TIFF_COMPRESSIONS:
        raise InvalidImage(
            f"the TIFF file has compression {compression}; none, fax, LZW, JPEG, Deflate and PackBits are read"
        )
    tile = tags.get(TIFF_TILE_WIDTH, 0) * tags.get(TIFF_TILE_HEIGHT, 0)
    if tile > max(LARGEST_TILE_PIXELS, tags.get(TIFF_WIDTH, 0) * tags.get(TIFF_HEIGHT, 0)):
        raise InvalidImage(f"the TIFF file has tiles of {tile} pixels, more than its picture")
    return file


def _big_tiff(file: bytes) -> bytes:
    raise InvalidImage("BigTIFF files are not read; TIFF files are")


def _bmp(file: bytes) -> bytes:
    if file[14:18] == OS2_BMP:
        return file
    if int.from_bytes(file[30:34], "little") in (1, 2):
        # Pillow undoes it byte by byte in Python.
        raise InvalidImage("BMP files with run-length compression are not read; others are")
    bits, colours = int.from_bytes(file[28:30], "little"), int.from_bytes(file[46:50], "little")
    if bits <= 8 and colours > MOST_COLOURS:
        # Pillow looks at each of up to 65,536.
        raise InvalidImage(f"the BMP file has a palette of {colours} colours; at most {MOST_COLOURS} are read")
    return file


def _check_parts(count: int) -> None:
    if count > MOST_PARTS:
        raise InvalidImage(f"the image file is made of more than {MOST_PARTS} chunks, segments or blocks")


LOOKS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"GIF8", _gif),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _big_tiff),
    (b"MM\0+", _big_tiff),
    (b"BM", _bmp),
)
