"""The plots of the model card: they open, show something, follow their figures, and are the same every time."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from PIL import Image

from model_export.report import plots
from tests.mnist_files import small_digits

RANDOM = np.random.default_rng(0)
COUNTS = np.diag(np.arange(90, 100)) + np.eye(10, k=2, dtype=np.int64)
PROBABILITIES = RANDOM.dirichlet(np.ones(10), 400).astype(np.float32)
BINS = RANDOM.integers(1, 50, 15), np.linspace(0.03, 0.97, 15), np.linspace(0.1, 1.0, 15)
SCORES = RANDOM.normal(12, 2, 500).astype(np.float32)
EPOCHS = np.arange(1, 9)
HISTORY = np.stack([0.5 / EPOCHS, 0.3 / EPOCHS, 1 - 0.05 / EPOCHS], axis=1)


def misread(count: int) -> bytes:
    images, labels = small_digits("t10k")
    return plots.misread_images(images[:count], labels[:count], PROBABILITIES[:count])


DRAWN: dict[str, Callable[[float], bytes]] = {
    "confusion": lambda factor: plots.confusion_matrix((COUNTS * factor).astype(np.int64)),
    "misread": lambda factor: misread(int(10 * factor)),
    "reliability": lambda factor: plots.reliability_diagram(*BINS, 0.01 * factor),
    "scores": lambda factor: plots.score_histograms(SCORES, {"noise": SCORES - 9, "blank": SCORES - 12}, 7 * factor),
    "filters": lambda factor: plots.first_layer_filters(np.sin(np.arange(500.0) * factor).reshape(20, 5, 5)),
    "training": lambda factor: plots.training_curves(HISTORY, int(4 * factor)),
}


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    assert image.format == "PNG"
    return image.convert("RGB")


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_a_wide_picture_with_content_on_white(name: str) -> None:
    image = opened(DRAWN[name](1))
    pixels = np.asarray(image)
    assert image.width == round(plots.WIDTH_INCHES * plots.DOTS_PER_INCH)
    assert (pixels[[0, -1]] == 255).all() and (pixels[:, [0, -1]] == 255).all(), "something is cut off at the border"
    assert 0.005 < (pixels < 250).any(axis=2).mean() < 0.9


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_figures_give_the_same_bytes_and_others_do_not(name: str) -> None:
    first = DRAWN[name](1)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):  # as somebody's matplotlibrc may say
        assert DRAWN[name](1) == first
    assert DRAWN[name](2) != first
    assert b"Software" not in first and b"matplotlib" not in first.lower()


def test_a_model_without_mistakes_can_be_drawn() -> None:
    opened(misread(0))
    opened(plots.confusion_matrix(np.diag(np.full(10, 7))))
    opened(plots.training_curves(np.array([[0.5, 0.4, 1.0], [0.2, 0.1, 1.0]]), 2))


def test_misread_images_fill_rows_of_eight_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "MOST_MISREAD", 17)
    heights = [opened(misread(count)).height for count in (8, 9, 17, 40)]
    assert heights[0] < heights[1] < heights[2] == heights[3]


def test_wrong_cells_are_orange_and_right_ones_are_not() -> None:
    def orange(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> int:
        red, _, blue = np.asarray(opened(plots.confusion_matrix(counts)), np.int64).transpose(2, 0, 1)
        return int((red - blue > 15).sum())

    right = np.diag(np.full(10, 100))
    assert orange(right) == 0
    one_wrong, two_wrong = right.copy(), right.copy()
    one_wrong[2, 7] = two_wrong[2, 7] = two_wrong[9, 0] = 3
    assert orange(two_wrong) == pytest.approx(2 * orange(one_wrong), rel=0.05)
