"""The lines of paper are taken away, and strokes are not."""

from __future__ import annotations

import numpy as np
import pytest

from service.pictures.rules import Field, without_rules


def squared_page(level: float = 60, slope: float = 0.05) -> Field:
    page = np.zeros((240, 320), np.float32)
    for at in range(20, 300, 25):
        for along in range(320):
            row, column = round(at + slope * along), round(at - slope * along)
            if row < 240:
                page[row, along] = level
            if along < 240 and column >= 0:
                page[along, column] = level
    return page


@pytest.mark.parametrize("slope", [0.0, 0.05, 0.12])
def test_lines_go(slope: float) -> None:
    page = squared_page(slope=slope)
    left = without_rules(page, 20)
    assert (left > 0).sum() < 0.05 * (page > 0).sum()


def test_a_stroke_across_them_stays() -> None:
    page = squared_page()
    page[60:180, 150:158] = 120
    left = without_rules(page, 20)
    assert (left[60:180, 150:158] == 120).mean() > 0.97


@pytest.mark.parametrize(("rows", "columns"), [((10, 230), (100, 103)), ((60, 62), (5, 315))])
def test_a_lone_stroke_from_side_to_side_stays(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    page = np.zeros((240, 320), np.float32)
    page[slice(*rows), slice(*columns)] = 100
    assert np.array_equal(without_rules(page, 20), page)


def test_small_pictures_are_left_alone() -> None:
    page = squared_page()[:90, :90]
    assert np.array_equal(without_rules(page, 20), page)
