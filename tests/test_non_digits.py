"""Images that show no digit: the forms of each kind, the same for a seed, none shaped like a digit by name."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model_export.judging.non_digits import BLANK, KINDS, NonDigit, non_digits
from model_export.judging.shapes import ALPHABET, LETTERS, LIKE_DIGITS, SYMBOLS, fonts, symbol
from tests.training import small_set

DIGITS = small_set("t10k", 60)
PICTURES_ONLY, RAW_ONLY = {BLANK}, {"half_digits"}


def made(kind: str, seed: int = 1) -> list[NonDigit]:
    return list(non_digits(kind, DIGITS, 5, seed=seed))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_has_its_forms_and_repeats_itself(kind: str) -> None:
    found, again, other = made(kind), made(kind), made(kind, seed=2)
    assert [each.picture for each in found] == [each.picture for each in again]
    assert [each.picture for each in found] != [each.picture for each in other] or kind in RAW_ONLY
    for each, same in zip(found, again, strict=True):
        if kind not in PICTURES_ONLY:
            assert each.raw is not None and same.raw is not None
            assert each.raw.dtype == np.uint8 and each.raw.shape == (28, 28)
            assert np.array_equal(each.raw, same.raw)
            assert np.ptp(each.raw) > 100
        if kind not in RAW_ONLY:
            assert each.picture is not None
            Image.open(io.BytesIO(each.picture)).load()
    assert any(each.raw is None for each in found) == (kind in PICTURES_ONLY)
    assert any(each.picture is None for each in found) == (kind in RAW_ONLY)


def test_blank_pictures_hold_no_drawing() -> None:
    for each in made(BLANK):
        assert each.picture is not None
        assert np.asarray(Image.open(io.BytesIO(each.picture)).convert("L"), np.float64).std() < 12


def test_a_half_digit_is_a_digit_with_one_half_blank() -> None:
    for each in made("half_digits"):
        assert each.raw is not None
        halves = (each.raw[:14], each.raw[14:], each.raw[:, :14], each.raw[:, 14:])
        assert sum(not half.any() for half in halves) >= 1


def test_two_digits_are_apart() -> None:
    """No column of the drawing's middle holds ink of both."""
    for each in made("two_digits"):
        assert each.raw is not None
        columns = np.flatnonzero(each.raw.max(axis=0) > 40)
        assert np.ptp(columns) >= 10


def test_letters_shaped_like_digits_are_left_out() -> None:
    assert set(LETTERS) | set("".join(LIKE_DIGITS.values())) == set(ALPHABET)
    assert not set(LETTERS) & set("".join(LIKE_DIGITS.values()))
    assert LIKE_DIGITS.keys() <= set("0123456789")
    assert not set(SYMBOLS) & set(ALPHABET + "0123456789|!/\\")


def test_there_are_many_fonts_each_with_letters_and_every_symbol_is_in_one() -> None:
    assert len(fonts()) >= 20
    assert all({*map(ord, LETTERS)} <= characters for _, characters in fonts())
    assert {*map(ord, SYMBOLS)} <= frozenset().union(*(characters for _, characters in fonts()))


def test_symbols_are_glyphs_and_shapes_of_many_forms() -> None:
    rng = np.random.default_rng(1)
    drawings = [symbol(rng) for _ in range(30)]
    assert all(drawing.max() > 0.9 for drawing in drawings)
    assert len({drawing.shape for drawing in drawings}) > 20
