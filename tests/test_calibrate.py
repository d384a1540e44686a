"""Temperature, digit score, threshold and calibration error, on numbers whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from model_export.calibrate import digit_score, expected_calibration_error, fit_temperature, reject_threshold


def drawn_from(logits: torch.Tensor) -> torch.Tensor:
    """Labels drawn with the probabilities that the logits claim."""
    generator = torch.Generator().manual_seed(0)
    return torch.multinomial(torch.softmax(logits, dim=1), 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("exaggeration", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_how_far_the_logits_exaggerate(exaggeration: float) -> None:
    honest = torch.randn(20_000, 10, generator=torch.Generator().manual_seed(1)) * 2
    labels = drawn_from(honest)
    assert fit_temperature(honest * exaggeration, labels) == pytest.approx(exaggeration, rel=0.03)


def test_the_digit_score_is_the_log_of_the_odds_of_a_digit() -> None:
    logits = torch.tensor([[0.0] * 10 + [0.0], [5.0] + [-1e9] * 9 + [2.0]])
    score = digit_score(logits)
    torch.testing.assert_close(score, torch.tensor([math.log(10), 3.0]))
    probabilities = torch.softmax(logits, dim=1)
    torch.testing.assert_close(torch.sigmoid(score), 1 - probabilities[:, 10])


def test_99_of_100_digits_reach_the_threshold() -> None:
    scores = torch.arange(10_000).float()
    assert (scores >= reject_threshold(scores)).double().mean().item() == pytest.approx(0.99, abs=1e-3)


def test_calibration_error_of_honest_and_of_boastful_probabilities() -> None:
    honest = torch.randn(50_000, 10, generator=torch.Generator().manual_seed(2)) * 2
    labels = drawn_from(honest)
    assert expected_calibration_error(torch.softmax(honest, dim=1), labels) < 0.01
    certain = torch.nn.functional.one_hot(torch.zeros(4).long(), 10).float()
    assert expected_calibration_error(certain, torch.tensor([0, 1, 2, 3])) == pytest.approx(0.75)
