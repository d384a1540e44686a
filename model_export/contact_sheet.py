"""A contact sheet: the images that were judged worst, with what they show, what was answered and how surely.

Knows samples, answers and Pillow only.
"""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from model_export.asking import Answer, Sample
from model_export.judged import Evaluation

TILE = 112  # pixels a side
CAPTION = 30
TITLE = 22
MARGIN = 6
COLUMNS = 12
BACKGROUND, TEXT, FAULT = (52, 60, 72), (235, 235, 235), (255, 170, 150)
Judged = tuple[Sample, Answer]


def contact_sheet(evaluation: Evaluation) -> bytes:
    """Draw the worst images of every set and kind that has some, a row each; the content of a PNG file."""
    rows = [
        *((f"{each.name}: {each.accuracy:.2%} right", each.worst) for each in evaluation.sets),
        *((f"{each.name}, {each.form}: {each.rejected:.2%} rejected", each.worst) for each in evaluation.non_digits),
    ]
    rows = [row for row in rows if row[1]]
    height = TITLE + TILE + CAPTION + MARGIN
    sheet = Image.new("RGB", (COLUMNS * (TILE + MARGIN) + MARGIN, max(1, len(rows)) * height + MARGIN), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    if not rows:
        pen.text((MARGIN, MARGIN), "every image was judged rightly", fill=TEXT, font=ImageFont.load_default(14))
    for index, (title, worst) in enumerate(rows):
        top = index * height + MARGIN
        pen.text((MARGIN, top), title, fill=TEXT, font=ImageFont.load_default(14))
        for column, (sample, answer) in enumerate(worst[:COLUMNS]):
            left = MARGIN + column * (TILE + MARGIN)
            tile = thumbnail(sample)
            sheet.paste(tile, (left + (TILE - tile.width) // 2, top + TITLE + (TILE - tile.height) // 2))
            pen.multiline_text(
                (left, top + TITLE + TILE + 2), caption(sample, answer), fill=FAULT, font=ImageFont.load_default(11)
            )
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def caption(sample: Sample, answer: Answer) -> str:
    """Say in two short lines what an image shows, what was answered, how surely, and why it was rejected.

    Examples:
        >>> caption(Sample(b"", 7), Answer(1, 0.981, (0.0,) * 10, 9.5, "ambiguous"))
        '7 read as 1, 98%\\nambiguous'
    """
    shown = "no digit" if sample.label < 0 else str(sample.label)
    if answer.digit < 0:
        return f"{shown}\n{answer.reason}"
    return (
        f"{shown} read as {answer.digit}, {answer.confidence:.0%}\n{answer.reason or f'score {answer.digit_score:.1f}'}"
    )


def thumbnail(sample: Sample) -> Image.Image:
    """An image as a viewer shows it, at most `TILE` pixels a side, on white where it is transparent; grey if unreadable."""
    if sample.raw:
        image: Image.Image = Image.frombytes("L", (28, 28), sample.image)
    else:
        try:
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(sample.image)))
            image.load()
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
            return Image.new("RGB", (TILE, TILE), (128, 128, 128))
    if image.mode.startswith(("I", "F")):  # convert would clamp what is above 255
        darkest, brightest = image.getextrema()
        image = image.convert("F").point(lambda value: value * (255 / max(brightest, 1e-6)) + 0).convert("L")
    image = image.convert("RGBA")
    laid = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    small = laid.width < TILE and laid.height < TILE
    return ImageOps.contain(laid, (TILE, TILE), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
