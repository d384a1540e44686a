"""The figures of the card, on answers that are known, and the file of `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model_export.calibrate import expected_calibration_error
from model_export.data import DataError, LabelledImages
from model_export.report.figures import Evaluation, Figures, read_evaluation

LABELS = np.array([3, 3, 7, 1], np.uint8)
TEST = LabelledImages(np.zeros((4, 28, 28), np.uint8), LABELS, sha256="0" * 64, is_mnist=False)


def answers(*pairs: tuple[int, float]) -> Figures:
    """What a model says that is so sure of these digits and spreads the rest evenly."""
    probabilities = np.stack([np.full(10, (1 - sure) / 9) for _, sure in pairs])
    for row, (digit, sure) in zip(probabilities, pairs, strict=True):
        row[digit] = sure
    scores = np.array([9.0, 1.0, 8.0, 7.0], np.float32)
    return Figures(TEST, probabilities.astype(np.float32), scores, microseconds=50.0, runtime="1.0")


FIGURES = answers((3, 0.9), (5, 0.7), (9, 0.8), (1, 0.95))


def test_confusion_and_misread_images() -> None:
    assert FIGURES.accuracy == 0.5
    counts = FIGURES.confusion()
    found = {(int(row), int(column)): int(counts[row, column]) for row, column in np.argwhere(counts)}
    assert found == {(3, 3): 1, (3, 5): 1, (7, 9): 1, (1, 1): 1}
    assert FIGURES.misread().tolist() == [2, 1], "the surest mistake first"


def test_rejected_is_the_share_below_the_threshold() -> None:
    assert (FIGURES.rejected(7.0), FIGURES.rejected(0.0)) == (0.25, 0.0)


def test_the_interval_is_wilsons() -> None:
    # 2 of 4, a value of many textbooks.
    assert FIGURES.accuracy_interval() == pytest.approx((0.1500, 0.8500), abs=1e-4)
    assert answers((3, 0.9), (3, 0.9), (7, 0.9), (1, 0.9)).accuracy_interval() == pytest.approx((0.5101, 1), abs=1e-4)


def test_reliability_is_what_the_calibration_error_sums_up() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.full(10, 0.2), 500).astype(np.float32)
    labels = generator.integers(0, 10, 500).astype(np.uint8)
    test = LabelledImages(np.zeros((500, 28, 28), np.uint8), labels, sha256="0" * 64, is_mnist=False)
    figures = Figures(test, probabilities, np.zeros(500, np.float32), microseconds=1.0, runtime="1.0")
    count, confidence, accuracy = figures.reliability()
    assert count.sum() == 500
    error = expected_calibration_error(torch.tensor(probabilities), torch.tensor(labels).long())
    assert (count * np.abs(confidence - accuracy)).sum() / 500 == pytest.approx(error)
    assert figures.calibration_error() == error


def test_an_evaluation_is_read_and_what_is_more_is_passed_over(tmp_path: Path) -> None:
    scans = {"name": "scans", "images": 20, "accuracy": 0.95, "rejected": 0.1, "calibration_error": None, "worst": [1]}
    noise = {"name": "noise", "form": "raw", "images": 3, "auroc": 0.99, "rejected": 0.5}
    content = {
        "sha256": "0a",
        "commit": "abc",
        "sets": [scans],
        "non_digits": [noise | {"digit_scores": [1.5, None, 8.0]}],
        "made": 1,
    }
    path = tmp_path / "evaluation.json"
    assert read_evaluation(path, "0a") == Evaluation()
    path.write_text(json.dumps(content))
    found = read_evaluation(path, "0a")
    (entry,), (kind,) = found.sets, found.non_digits
    assert (entry.name, entry.images, entry.accuracy) == ("scans", 20, 0.95)
    assert (entry.rejected, entry.calibration_error) == (0.1, None)
    assert (kind.name, kind.form, kind.images, kind.auroc, kind.rejected) == ("noise", "raw", 3, 0.99, 0.5)
    assert kind.scores.tolist() == [1.5, 8]
    with pytest.raises(DataError, match=r"is about a model with the sha256 0a, not 0b; run: python -m model_export"):
        read_evaluation(path, "0b")


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"sha256": "0a", "sets": [{"name": "scans"}]}'])
def test_another_file_is_no_evaluation(content: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(DataError, match=r"evaluation\.json is no file of `evaluate`: "):
        read_evaluation(tmp_path / "evaluation.json", "0a")
