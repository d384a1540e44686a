"""The baselines: features and networks are what they are called, training is repeatable, results survive a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from model_export.data import DataError
from model_export.network import build_network, describe, fold_batch_norm
from model_export.report.baselines import (
    METHODS,
    Baselines,
    Hog,
    Method,
    build_average_pooled,
    fit,
    measure_baselines,
    read_baselines,
    to_json,
)
from tests.training import small_set

TRAINING, TEST = small_set("train"), small_set("t10k", 100)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def baselines() -> Baselines:
    return measure_baselines(small_set("train", 700), TEST, epochs=1)


def orientations(image: torch.Tensor) -> torch.Tensor:
    """The HOG features of one image [28, 28], summed over blocks and cells, one number an orientation."""
    features: torch.Tensor = Hog()(image.reshape(1, 1, 28, 28))
    return features.reshape(-1, 9, 4).sum(dim=(0, 2))


def test_hog_finds_the_direction_of_edges() -> None:
    ramp = torch.linspace(0, 1, 28)
    falls = ramp.flip(0).expand(28, 28)
    across, down, both = ramp.expand(28, 28), ramp.expand(28, 28).T, ramp + ramp[:, None]
    assert orientations(across).argmax() == orientations(falls).argmax() == 0, "the sign of a gradient does not count"
    assert set(orientations(down).topk(2).indices.tolist()) == {4, 5}, "90 degrees lie between 80 and 100"
    assert orientations(both / 2).topk(2).indices.tolist() == [2, 3], "45 degrees are nearer to 40 than to 60"


def test_hog_has_unit_blocks_and_ignores_contrast() -> None:
    images = torch.tensor(TEST.images[:20]).unsqueeze(1) / 255
    features = Hog()(images)
    assert features.shape == (20, 1296)
    torch.testing.assert_close(features, Hog()(images / 2), atol=1e-5, rtol=0)
    lengths = features.reshape(20, 36, 36).norm(dim=2)
    assert ((lengths - 1).abs().lt(1e-5) | lengths.lt(1e-5)).all()
    assert Hog()(torch.zeros(1, 1, 28, 28)).abs().sum() == 0


def test_average_pooling_is_the_only_difference() -> None:
    ours, other = build_network(), build_average_pooled()
    different = [(a, b) for a, b in zip(ours, other, strict=True) if repr(a) != repr(b)]
    assert [type(layer) for layer in other if isinstance(layer, nn.MaxPool2d)] == []
    assert different and all(isinstance(b, nn.AvgPool2d) for _, b in different)
    assert all((a.kernel_size, a.stride) == (b.kernel_size, b.stride) for a, b in different)


@pytest.mark.parametrize("method", [METHODS[0], METHODS[-1]], ids=lambda method: method.name)
def test_training_is_repeatable(method: Method) -> None:
    images, labels = torch.tensor(TRAINING.images[:300]), torch.tensor(TRAINING.labels[:300]).long()
    first, second = (fit(method, images, labels, epochs=1).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_linear_classifier_learns() -> None:
    images, labels = torch.tensor(TRAINING.images), torch.tensor(TRAINING.labels).long()
    classifier = fit(METHODS[0], images, labels, epochs=8)
    digits = classifier(torch.tensor(TEST.images).unsqueeze(1) / 255).argmax(dim=1)
    assert (digits == torch.tensor(TEST.labels)).double().mean() > 0.85


def test_every_method_is_measured(baselines: Baselines, capsys: pytest.CaptureFixture[str]) -> None:
    assert [result.name for result in baselines.results] == [method.name for method in METHODS]
    assert baselines.images == 700 - 700 // 12
    assert baselines.network == describe(build_network())
    ours = sum(parameter.numel() for parameter in fold_batch_norm(build_network().eval()).parameters())
    counts = [result.parameters for result in baselines.results]
    assert counts == [784 * 10 + 10, 1296 * 10 + 10, 785 * 256 + 257 * 128 + 129 * 10, ours, ours, ours]
    assert all(0 <= result.accuracy <= 1 and result.microseconds > 0 for result in baselines.results)
    assert baselines.results[1].accuracy > 0.5


def test_results_survive_their_file(baselines: Baselines, tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    assert read_baselines(path) is None
    path.write_bytes(to_json(baselines))
    assert read_baselines(path) == baselines


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"results": [{"name": "x"}]}', '{"results": []}'])
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "baselines.json").write_text(content)
    with pytest.raises(DataError, match=r"is no file of `report --baselines`: .*that command writes it anew"):
        read_baselines(tmp_path / "baselines.json")
