"""A contact sheet: the images that were judged worst, with what they show, what was answered and how surely.

Knows samples, answers and Pillow only.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from model_export.judging.asking import Answer, Sample
from model_export.judging.judged import Evaluation

TILE = 112  # pixels a side
CAPTION = 30
TITLE = 22
MARGIN = 6
COLUMNS = 14
BACKGROUND, TEXT, FAULT, UNDERLAY = (52, 60, 72), (235, 235, 235), (255, 170, 150), (150, 150, 150)
FEWEST_COLUMNS = 3  # that a title needs
Judged = tuple[Sample, Answer]


def contact_sheet(evaluation: Evaluation) -> bytes:
    """Draw the worst images of every set and kind that has some, in rows; the content of a PNG file."""
    found = [
        *((f"{each.name}: {each.accuracy:.1%} right", each.worst) for each in evaluation.sets),
        *((f"{each.name}, {each.form}: {each.rejected:.1%} rejected", each.worst) for each in evaluation.non_digits),
    ]
    blocks = [block for block in found if block[1]] or [("every image was judged rightly", ())]
    corners = list(_corners([len(worst) for _, worst in blocks]))
    side, height = TILE + MARGIN, TITLE + TILE + CAPTION + MARGIN
    rows = corners[-1][0] + 1
    sheet = Image.new("RGB", (COLUMNS * side + MARGIN, rows * height + MARGIN), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    title_font, caption_font = ImageFont.load_default(14), ImageFont.load_default(11)
    for (title, worst), (row, column) in zip(blocks, corners, strict=True):
        left, top = MARGIN + column * side, MARGIN + row * height
        pen.text((left, top), title, fill=TEXT, font=title_font)
        for index, (sample, answer) in enumerate(worst):
            tile = thumbnail(sample)
            x, y = left + index * side, top + TITLE
            sheet.paste(tile, (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2))
            pen.multiline_text((x, y + TILE + 2), caption(sample, answer), fill=FAULT, font=caption_font)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def caption(sample: Sample, answer: Answer) -> str:
    """Say in two short lines what an image shows, what was answered, how surely, and why it was rejected.

    Examples:
        >>> caption(Sample(b"", 7), Answer(1, 0.981, (0.0,) * 10, 9.5, "ambiguous")).splitlines()
        ['7 read as 1, 98%', 'ambiguous']
    """
    shown = "" if sample.label < 0 else f"{sample.label} "
    if answer.digit < 0:
        return f"{shown}{answer.reason}"
    return f"{shown}read as {answer.digit}, {answer.confidence:.0%}\n" + (
        answer.reason or f"score {answer.digit_score:.1f}"
    )


def thumbnail(sample: Sample) -> Image.Image:
    """An image as a viewer shows it, at most `TILE` pixels a side, on grey where it is transparent or unreadable."""
    if sample.raw:
        image: Image.Image = Image.frombytes("L", (28, 28), sample.image)
    else:
        try:
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(sample.image)))
        # Pillow's plug-ins raise almost any type on damaged files.
        except Exception:
            return Image.new("RGB", (TILE, TILE), UNDERLAY)
    if image.mode.startswith(("I", "F")):  # convert would clamp what is above 255
        grey = np.asarray(image, np.float32)
        image = Image.fromarray((grey * (255 / max(float(grey.max()), 1e-6))).clip(0, 255).astype(np.uint8))
    image = image.convert("RGBA")
    laid = Image.alpha_composite(Image.new("RGBA", image.size, UNDERLAY), image).convert("RGB")
    small = laid.width < TILE and laid.height < TILE
    return ImageOps.contain(laid, (TILE, TILE), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _corners(widths: list[int]) -> Iterator[tuple[int, int]]:
    """Row and column where blocks of so many tiles begin, one after the other, none broken."""
    row = column = 0
    for width in widths:
        width = max(width, FEWEST_COLUMNS)
        if column + width > COLUMNS:
            row, column = row + 1, 0
        yield row, column
        column += width
