"""A sheet of paper on a table is found, and what is none is left as it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from service.pictures.sheets import without_table

Pixels = npt.NDArray[np.uint8]


def on_a_table(sheet: Pixels, top: int = 60, left: int = 120) -> Pixels:
    noise = np.random.default_rng(1).integers(-4, 5, (300, 400))
    picture = np.full((300, 400), 60) + noise
    picture[top : top + sheet.shape[0], left : left + sheet.shape[1]] = sheet
    return picture.astype(np.uint8)


def with_ink(shape: tuple[int, int] = (120, 100)) -> Pixels:
    """A sheet with a thick stroke."""
    sheet = np.full(shape, 220, np.uint8)
    sheet[30:90, 45:55] = 30
    return sheet


def test_a_sheet_is_cut_out_and_the_table_is_gone() -> None:
    picture = on_a_table(with_ink())
    for found in (without_table(picture), without_table(np.stack([picture] * 3, -1))[..., 0]):
        # A little of its edges is gone as well.
        assert 100 <= found.shape[0] <= 120 and 80 <= found.shape[1] <= 100
        assert ((found == 220) | (found == 30)).all()
        assert (found == 30).sum() == 60 * 10


def test_a_sheet_that_lies_aslant_is_surrounded_by_its_paper() -> None:
    rows, columns = np.mgrid[:300, :400]
    inside = (abs(rows - 150 + (columns - 200) * 0.3) < 70) & (abs(columns - 200 - (rows - 150) * 0.3) < 80)
    found = without_table(np.where(inside, 220, 60).astype(np.uint8))
    assert found.shape < (300, 400) and (found == 220).all()


@pytest.mark.parametrize(
    "picture",
    [
        # paper to the edges, with a stroke
        np.where(np.arange(400)[None] // 40 == 5, 40, 210).repeat(300, 0).astype(np.uint8),
        # a lit place with soft edges
        (60 + 160 * np.exp(-((np.hypot(*np.mgrid[-150:150, -200:200]) / 90) ** 2))).astype(np.uint8),
        # light ink: a ring
        on_a_table(np.zeros((0, 0), np.uint8))
        + np.where(abs(np.hypot(*np.mgrid[-150:150, -200:200]) - 80) < 12, 150, 0).astype(np.uint8),
        # a 0 that fills the picture
        np.where(
            abs(np.hypot(*np.meshgrid(np.linspace(-1, 1, 200), np.linspace(-1, 1, 300))) - 0.85) < 0.15, 60, 220
        ).astype(np.uint8),
        # a small thing
        on_a_table(np.full((20, 20), 220, np.uint8)),
        # half of the picture
        np.where(np.arange(400)[None] < 200, 60, 220).repeat(300, 0).astype(np.uint8),
        np.full((300, 400), 128, np.uint8),
    ],
)
def test_what_is_no_sheet_is_left_alone(picture: Pixels) -> None:
    assert without_table(picture) is picture
