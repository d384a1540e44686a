"""The figures that follow from answers: checked by hand, and against scikit-learn's."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model_export.judging.judged import SYNTHETIC, Evaluation, KindResult, SetResult, auroc


def set_result(name: str = "some", group: str = SYNTHETIC, refused: int = 0) -> SetResult:
    """Labels 0 to 4; all right but the last; the first rejected; `refused` more that were refused."""
    probabilities = np.eye(10, dtype=np.float32)[[0, 1, 2, 3, 9]] * 0.91 + np.float32(0.009)
    return SetResult(
        name,
        group,
        labels=np.array([0, 1, 2, 3, 4] + [5] * refused),
        digits=np.array([0, 1, 2, 3, 9] + [-1] * refused),
        probabilities=np.concatenate([probabilities, np.zeros((refused, 10), np.float32)]),
        digit_scores=np.array([1, 5, 6, 7, 8] + [math.nan] * refused, np.float32),
        reasons=("blank", "", "", "", "", *["refused"] * refused),
        worst=(),
    )


def kind_result(auroc: float = math.nan) -> KindResult:
    scores = np.array([1, 2, 3], np.float32)
    return KindResult("letters", "raw", scores, ("not a digit", "not a digit", ""), auroc, ())


def test_shares_of_a_set() -> None:
    result = set_result()
    assert result.accuracy == 0.8
    assert result.rejected == 0.2
    assert result.accuracy_by_digit[:5] == (1, 1, 1, 1, 0)
    assert all(math.isnan(share) for share in result.accuracy_by_digit[5:])
    assert result.calibration_error == pytest.approx(0.919 - 0.8, abs=1e-6)


def test_refused_images_count_as_wrong_and_rejected_and_not_for_calibration() -> None:
    result = set_result(refused=5)
    assert (result.accuracy, result.rejected) == (0.4, 0.6)
    assert result.calibration_error == set_result().calibration_error


def test_a_set_that_was_refused_whole_has_no_calibration_error() -> None:
    labels = np.array([3])
    empty = np.zeros((1, 10), np.float32)
    result = SetResult("x", "folder", labels, labels * 0 - 1, empty, empty[0, :1] * np.nan, ("refused",), ())
    assert math.isnan(result.calibration_error)


def test_auroc_is_that_of_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(1)
    digits, others = (rng.integers(0, 30, 500) + shift for shift in (8, 0))
    expected = roc_auc_score([1] * 500 + [0] * 500, np.concatenate([digits, others]))
    found = auroc(digits.astype(np.float32), np.append(others, np.nan).astype(np.float32))
    assert found == pytest.approx(expected, abs=1e-9)


def test_auroc_of_nothing_is_no_number() -> None:
    some, none = np.ones(3, np.float32), np.full(2, np.nan, np.float32)
    assert math.isnan(auroc(some, none)) and math.isnan(auroc(none[:0], some))


def test_categories_are_summed_up_and_other_sets_are_not() -> None:
    evaluation = Evaluation("m", "0a", (set_result("a"), set_result("b", refused=5), set_result("c", "mnist")), (), ())
    assert [result.name for result in evaluation.summary()] == ["c", "synthetic, all", "a", "b"]
    assert evaluation.summary()[1].accuracy == 8 / 15


def test_the_table_and_the_json_have_every_figure() -> None:
    evaluation = Evaluation(
        "digits/1",
        "0a",
        (set_result("a"), set_result("b")),
        (kind_result(0.9876), kind_result()),
        ("skipped mnist: not here",),
    )
    table = evaluation.table().splitlines()
    assert table[0] == "digits/1, sha256 0a, served by commit unknown"
    assert table[3].split() == ["synthetic,", "all", "10", "80.00%", "20.00%", "11.90%"]
    assert table[8].split() == ["synthetic,", "all", *["100.0%"] * 4, "0.0%", *["-"] * 5]
    assert table[11].split() == ["letters", "raw", "3", "0.9876", "66.67%", "not", "a", "digit"]
    assert table[12].split()[3] == "-"
    assert table[-1] == "skipped mnist: not here"
    facts = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    assert [each["name"] for each in facts["sets"]] == ["synthetic, all", "a", "b"]
    assert facts["sets"][1]["accuracy_by_digit"] == [1, 1, 1, 1, 0, *[None] * 5]
    assert facts["sets"][1]["reasons"] == {"blank": 1}
    assert [each["auroc"] for each in facts["non_digits"]] == [0.9876, None]
    assert facts["sha256"] == "0a"
    assert facts["non_digits"][0]["digit_scores"][0] == round(float(kind_result().digit_scores[0]), 3)
    assert facts["remarks"] == ["skipped mnist: not here"]
