"""The contact sheet: a tile and a caption for each of the worst images, whatever kind of file it is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model_export.judging.asking import Answer, Sample
from model_export.judging.contact_sheet import COLUMNS, TILE, UNDERLAY, caption, contact_sheet, thumbnail
from model_export.judging.judged import Evaluation, SetResult
from model_export.judging.pictures import CATEGORIES
from tests.pictures import encode
from tests.training import small_set

WRONG = Answer(1, 0.981, (0.1,) * 10, 9.54, "")


def evaluation(*counts: int) -> Evaluation:
    """Sets with so many bad images each."""
    sample = Sample(encode(np.full((40, 40), 200, np.uint8)), 7)
    empty = np.zeros(0, np.int64)
    floats = np.zeros((1, 10), np.float32)
    return Evaluation(
        "m",
        "0a",
        tuple(
            SetResult(f"set {index}", "folder", empty + 1, empty, floats, floats[0], ("",), ((sample, WRONG),) * count)
            for index, count in enumerate(counts)
        ),
        (),
        (),
    )


def size(sheet: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(sheet)).size


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_sets_share_a_row_while_they_fit() -> None:
    one_row = size(contact_sheet(evaluation(3, 4)))
    assert one_row == size(contact_sheet(evaluation(12)))
    assert one_row[0] > COLUMNS * TILE
    assert size(contact_sheet(evaluation(12, 12)))[1] > 1.8 * one_row[1]
    assert size(contact_sheet(evaluation(0, 0))) == one_row


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_a_picture_is_on_the_sheet() -> None:
    pixels = np.asarray(Image.open(io.BytesIO(contact_sheet(evaluation(1)))).convert("L"))
    assert (pixels == 200).sum() > 0.9 * TILE**2


def test_captions_say_truth_answer_and_doubt() -> None:
    assert caption(Sample(b"", 7), WRONG) == "7 read as 1, 98%\nscore 9.5"
    assert caption(Sample(b""), Answer(1, 0.5, (0.1,) * 10, 9.5, "ambiguous")) == "read as 1, 50%\nambiguous"
    assert caption(Sample(b"", 7), Answer(-1, 0, (0,) * 10, float("nan"), "refused")) == "7 refused"


@pytest.mark.parametrize("category", [name for name in CATEGORIES if name.startswith(("file_", "canvas_", "tiny"))])
def test_every_kind_of_file_has_a_thumbnail_that_shows_it(category: str) -> None:
    image = small_set("t10k", 1).images[0]
    tile = thumbnail(Sample(CATEGORIES[category](image, np.random.default_rng(1)), 7))
    assert tile.mode == "RGB" and max(tile.size) == TILE
    assert np.ptp(np.asarray(tile.convert("L"), np.int64)) > 50


def test_raw_images_are_enlarged_and_damaged_files_are_grey() -> None:
    raw = small_set("t10k", 1).images[0]
    assert np.array_equal(np.asarray(thumbnail(Sample(raw.tobytes(), 7, raw=True)))[::4, ::4, 0], raw)
    for damaged in (b"hello", encode(np.zeros((50, 50), np.uint8))[:40]):
        assert thumbnail(Sample(damaged, 7)).getcolors() == [(TILE**2, UNDERLAY)]
