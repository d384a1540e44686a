"""The manifest: what was published is read back, anything else is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model_export.publish import manifest
from model_export.verify import Golden
from service.errors import ModelUnusable
from service.model.manifest import Manifest

IMAGES = np.arange(2 * 784, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
PROBABILITIES = np.eye(10, dtype=np.float32)[[3, 4]]
SCORES = np.array([5.5, -1.25], np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest(b"the model", Golden(IMAGES, PROBABILITIES, SCORES)))
    return path


def answers(
    probability_change: float = 0, score_change: float = 0
) -> Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    def run(images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        np.testing.assert_array_equal(images, IMAGES[:, None])
        return PROBABILITIES - np.float32(probability_change), SCORES + np.float32(score_change)

    return run


def test_what_was_published_passes(path: Path) -> None:
    found = Manifest.read(path)
    found.check_file(b"the model")
    found.check_answers(answers(0.001, 0.01))


def test_another_file_is_refused_with_both_hashes(path: Path) -> None:
    found = Manifest.read(path)
    with pytest.raises(ModelUnusable, match=rf"its sha256 is \w{{64}}, manifest.json says {found.sha256}"):
        found.check_file(b"the mode1")


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (answers(0.02), "with probabilities 0.02 away from those it was published with; at most 0.01 is rounding"),
        (answers(0, 0.2), "with digit scores 0.2 away"),
        (answers(float("nan")), "with probabilities nan away"),
        (answers(0, float("nan")), "with digit scores nan away"),
    ],
)
def test_other_answers_are_refused(path: Path, run: Any, text: str) -> None:
    with pytest.raises(ModelUnusable, match=text):
        Manifest.read(path).check_answers(run)


def test_a_missing_manifest_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"no manifest.json beside it; `python -m model_export verify` writes one"):
        Manifest.read(tmp_path / "manifest.json")


def test_a_folder_in_its_place_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"cannot read manifest.json: Is a directory"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("sha256"),
        lambda content: content["golden"].update(images="%"),
        lambda content: content["golden"].update(images="AAAA"),
        lambda content: content["golden"]["probabilities"].pop(),
        lambda content: content["golden"]["digit_scores"].pop(),
        lambda content: content.update(golden=None),
        lambda content: content.update(golden={"images": "", "probabilities": [], "digit_scores": []}),
        lambda content: content["golden"].update(digit_scores=[10**400, 0]),
    ],
    ids=[
        "no hash",
        "no base64",
        "too few pixels",
        "too few probabilities",
        "too few scores",
        "no golden",
        "no samples",
        "huge score",
    ],
)
def test_a_damaged_manifest_is_refused(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    for damaged in (json.dumps(content), path.read_text()[:-9], "[]", "[" * 100_000):
        path.write_text(damaged)
        with pytest.raises(ModelUnusable, match=r"is damaged; expected what `python -m model_export verify` writes"):
            Manifest.read(path)


def test_a_file_too_large_is_not_read(path: Path) -> None:
    path.write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(ModelUnusable, match="has more than 1048576 bytes"):
        Manifest.read(path)
