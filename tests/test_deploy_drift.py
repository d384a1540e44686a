"""What the drift alert takes for normal is what the released model says about MNIST's validation images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from model_export.data import load_validation_images
from service.model.runtime import Session
from service.runs.judging import Judged, judge
from service.settings import bundled_models
from tests.manifests import DEPLOY

MONITORING = DEPLOY / "components" / "monitoring"
RULES = (MONITORING / "rules.yaml").read_text()


@pytest.fixture(scope="module")
def validated(mnist: Path) -> Judged:
    images = load_validation_images(mnist).images.reshape(-1, 1, 28, 28)
    model = (bundled_models() / "digits/1/model.onnx").read_bytes()
    session = Session(model, device="cpu", threads=1, max_run_images=32)
    parts = [session.run(images[start : start + 32]) for start in range(0, len(images), 32)]
    probabilities, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    return judge(images, probabilities, scores, reject_threshold=float(session.metadata["reject_threshold"]))


def constant(pattern: str) -> float:
    (found,) = re.findall(pattern, RULES)
    return float(found)


def test_the_figures_in_the_rules_are_those_of_the_released_model(validated: Judged) -> None:
    assert constant(r"mean ink of (0\.[0-9]+)") == round(float(np.mean(validated.ink)), 3)
    assert constant(r"confidence of (0\.[0-9]+)") == round(float(np.mean(validated.confidences)), 3)
    rejected = np.mean([bool(reason) for reason in validated.rejection_reasons])
    assert constant(r"([0-9.]+) % of them rejected") == round(100 * float(rejected), 1)


def test_the_alert_is_as_far_from_them_as_a_thousand_images_never_are(validated: Judged) -> None:
    """Each of its limits, against 300 draws of the 1,000 images that it wants at least."""
    ink, confidences, digits = (np.array(each) for each in (validated.ink, validated.confidences, validated.digits))
    rejected = np.array([bool(reason) for reason in validated.rejection_reasons])
    draws = [np.random.default_rng(seed).integers(0, len(ink), 1000) for seed in range(300)]
    normal = constant(r"ink_ratio:mean1h - ([0-9.]+)\)")
    assert max(abs(ink[draw].mean() - normal) for draw in draws) < constant(r"mean1h - [0-9.]+\) > ([0-9.]+)") / 2
    assert min(confidences[draw].mean() for draw in draws) > constant(r"confidence:mean1h < ([0-9.]+)")
    assert max(rejected[draw].mean() for draw in draws) < constant(r"rejected_ratio:rate1h > ([0-9.]+)") / 2
    mixes = [np.bincount(digits[draw], minlength=10) / 1000 for draw in draws]
    assert max(np.abs(mix - 0.1).sum() / 2 for mix in mixes) < constant(r"distance1h > ([0-9.]+)") / 2


def test_the_dashboard_draws_the_same_figures() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    drawn = [float(each) for panel in panels for each in re.findall(r"vector\(([0-9.]+)\)", json.dumps(panel))]
    rejected = constant(r"([0-9.]+) % of them rejected") / 100
    assert drawn == [constant(r"mean ink of (0\.[0-9]+)"), constant(r"confidence of (0\.[0-9]+)"), rejected]
