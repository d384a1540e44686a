"""Finding the newest model file and reading the facts about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_export.publish import manifest
from model_export.verify import Golden
from service.errors import ModelUnusable
from service.model import repository
from service.model.repository import Model, find, load, select

FACTS = {
    "network": "one layer",
    "accuracy": "0.995",
    "calibration_error": "0.002",
    "tested_on": "others",
    "licence": "free",
    "commit": "abc",
    "trained_on": "digits",
    "reject_threshold": "3.5",
}


class FakeSession:
    """A session that only knows its facts."""

    def __init__(self, metadata: Mapping[str, str]):
        self.metadata = metadata
        self.providers_asked = ["A", "B"]
        self.providers_got = ["B"]
        self.gpu: int | None = 1
        self.runs_at_once = 2

    def stop_runs(self) -> None:
        """Nothing runs."""

    def run(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        return np.zeros((len(images), 10), np.float32), np.zeros(len(images), np.float32)


def opener(facts: Mapping[str, str] = FACTS) -> Callable[[bytes], FakeSession]:
    return lambda data: FakeSession(facts)


def put(models: Path, version: str, data: bytes = b"model") -> None:
    folder = models / "digits" / version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(data)
    answers = np.zeros((1, 10), np.float32), np.zeros(1, np.float32)
    (folder / "manifest.json").write_bytes(manifest(data, Golden(np.zeros((1, 28, 28), np.uint8), *answers)))


def load_newest(models: Path, make_session: Callable[[bytes], FakeSession]) -> Model:
    return load(find(models)[-1], make_session)


def test_the_highest_version_number_is_served(tmp_path: Path) -> None:
    for version in ("2", "10", "9", "latest", "11-draft", "011", "9" * 19):
        put(tmp_path, version, version.encode())
    (tmp_path / "digits" / "12").mkdir()  # still without its file
    model = load_newest(tmp_path, opener())
    assert model.version == "10"
    assert model.sha256 == hashlib.sha256(b"10").hexdigest()


def test_the_facts_are_those_of_the_file(tmp_path: Path) -> None:
    put(tmp_path, "1")
    model = load_newest(tmp_path, opener())
    assert (model.name, model.network, model.accuracy) == ("digits", "one layer", 0.995)
    assert (model.trained_on, model.reject_threshold) == ("digits", 3.5)
    assert (model.calibration_error, model.tested_on, model.licence, model.commit) == (0.002, "others", "free", "abc")
    assert (model.providers_asked, model.providers_got) == (["A", "B"], ["B"])
    assert (model.gpu, model.runs_at_once) == (1, 2)


def test_no_model_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable) as error:
        load_newest(tmp_path, opener())
    assert f"{tmp_path}/digits/<version>/model.onnx does not exist" in str(error.value)
    assert "--models-dir" in str(error.value)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "its metadata lack 'network'"),
        (FACTS | {"accuracy": "good"}, "its metadata say accuracy='good'; expected a finite number"),
        (FACTS | {"reject_threshold": "nan"}, "its metadata say reject_threshold='nan'"),
    ],
)
def test_missing_or_wrong_facts_are_named(tmp_path: Path, facts: Mapping[str, str], text: str) -> None:
    put(tmp_path, "1")
    with pytest.raises(ModelUnusable) as error:
        load_newest(tmp_path, opener(facts))
    assert text in str(error.value) and str(tmp_path) not in str(error.value)


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "digits" / "1" / "model.onnx").mkdir(parents=True)
    with pytest.raises(ModelUnusable, match="cannot read"):
        load_newest(tmp_path, opener())


def test_a_file_too_large_to_be_a_model_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "1", b"12345")
    monkeypatch.setattr(repository, "LARGEST_FILE_BYTES", 4)
    with pytest.raises(ModelUnusable, match="has 5 bytes; at most 4 are read"):
        load_newest(tmp_path, opener())


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "1")
    (tmp_path / "digits/1/model.onnx").write_bytes(b"mode1")
    with pytest.raises(ModelUnusable, match=r"its sha256 is .*the file is not the published one"):
        load_newest(tmp_path, opener())


def test_a_model_that_answers_otherwise_than_it_did_is_refused(tmp_path: Path) -> None:
    class Other(FakeSession):
        def run(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
            return np.ones((len(images), 10), np.float32), np.zeros(len(images), np.float32)

    put(tmp_path, "1")
    with pytest.raises(ModelUnusable, match=r"it answers the golden samples"):
        load_newest(tmp_path, lambda data: Other(FACTS))


def test_versions_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for version in ("2", "10", "9"):
        put(tmp_path, version)
    found = find(tmp_path)
    assert [file.version for file in found] == ["2", "9", "10"]
    assert find(tmp_path) == found
    found[0].path.write_bytes(b"other")
    assert [one == other for one, other in zip(find(tmp_path), found, strict=True)] == [False, True, True]


def test_a_folder_of_one_model_and_a_lone_file_are_found_too(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"flat")
    assert [(file.version, file.path.name) for file in find(tmp_path)] == [("1", "model.onnx")]
    put(tmp_path, "7")
    assert [file.version for file in find(tmp_path / "digits")] == ["7"]
    assert [file.version for file in find(tmp_path)] == ["7"]


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("latest:1", ["10"]),
        ("latest:2", ["9", "10"]),
        ("latest:9", ["2", "9", "10"]),
        ("all", ["2", "9", "10"]),
        ("2,10", ["2", "10"]),
        ("3", []),
    ],
)
def test_a_policy_selects_versions(tmp_path: Path, policy: str, versions: list[str]) -> None:
    for version in ("2", "10", "9"):
        put(tmp_path, version)
    assert [file.version for file in select(find(tmp_path), policy)] == versions
