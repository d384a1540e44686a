"""Other ways to score what looks like a digit: all kinds, and the same figure as computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model_export.judging.non_digits import non_digits
from model_export.network import to_input
from model_export.report import score_trials
from model_export.report.score_trials import SEED, try_scores
from tests.training import small_set, tiny_checkpoint


def test_each_score_is_tried_on_each_kind_in_raw_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_trials, "IMAGES", 6)
    test, validation, network = small_set("t10k", 60), small_set("train", 200), tiny_checkpoint().network()
    trials = {trial.name: trial.auroc for trial in try_scores(network, test, validation)}
    assert list(trials) == ["largest probability", "energy", "distance to class means", "digit score"]
    kinds = {"noise", "letters", "symbols", "clothes", "two_digits", "half_digits", "textures"}
    assert all(areas.keys() == kinds for areas in trials.values())
    noise = np.stack([each.raw for each in non_digits("noise", validation, 6, seed=SEED) if each.raw is not None])
    with torch.inference_mode():
        energy = [torch.logsumexp(network(to_input(torch.tensor(i)))[:, :10], 1) for i in (test.images, noise)]
    above = (energy[0][:, None] > energy[1][None]).double().mean().item()
    assert trials["energy"]["noise"] == pytest.approx(above, abs=1e-3)
