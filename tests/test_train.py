"""Training: reproducible, resumable, interruptible, and blind to the test set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_export import train as train_module
from model_export.checkpoint import CheckpointError, load_checkpoint, load_tensors, to_bytes
from model_export.data import DataError
from model_export.train import Training, TrainingOptions, train
from tests.conftest import REPOSITORY
from tests.training import TINY, small_set, tiny_checkpoint

DATA = small_set("train", 700)


def run(folder: Path, *, resume: bool = False, **changes: Any) -> bytes:
    """Train with TINY's options; returns the checkpoint file."""
    train(DATA, dataclasses.replace(TINY, **changes), folder, resume=resume)
    return (folder / "checkpoint.pt").read_bytes()


class StopAfter:
    """Ctrl-C after so many epochs, the teachers' counted, at the moment when the next one begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, epochs: int):
        real, left = Training.run_epoch, iter(range(epochs))

        def run_epoch(training: Training, number: int) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            real(training, number)

        monkeypatch.setattr(Training, "run_epoch", run_epoch)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = run(tmp_path / "first")
    assert run(tmp_path / "again") == first
    assert run(tmp_path / "other", seed=4) != first


@pytest.mark.slow
@pytest.mark.parametrize("done", [1, 3, 5], ids=["a teacher", "the student", "the finisher's start"])
def test_resuming_gives_what_was_not_interrupted(done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole", teachers=1, teacher_epochs=2)
    with monkeypatch.context() as patch:
        StopAfter(patch, done)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", teachers=1, teacher_epochs=2)
    stopped = tmp_path / "parts" / "checkpoint.pt"
    assert stopped.exists() == (done > 2)
    assert run(tmp_path / "parts", teachers=1, teacher_epochs=2, resume=True) == whole
    assert not (tmp_path / "parts" / "training.pt").exists()


def test_teachers_make_a_difference_and_their_epochs_are_told(tmp_path: Path) -> None:
    assert run(tmp_path / "taught", teachers=2, teacher_epochs=1) != run(tmp_path / "alone")
    log = json.loads((tmp_path / "taught" / "training.json").read_text())
    assert {name: len(epochs) for name, epochs in log.items()} == {
        "teacher 1": 1,
        "teacher 2": 1,
        "student": 3,
        "finisher": 1,
    }
    assert log["teacher 1"][0]["loss"] != log["teacher 2"][0]["loss"]
    assert log["student"][0].keys() == {"loss", "validation_loss", "validation_accuracy", "seconds"}


def test_ctrl_c_before_the_first_epoch_ended_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StopAfter(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_learns_and_records_what_it_was_made_from() -> None:
    facts = tiny_checkpoint().facts
    assert facts.validation_accuracy > 0.5
    assert (facts.seed, facts.epochs, facts.batch_size, facts.threads) == (3, 3, 32, 1)
    assert facts.trained_on == "a training set in MNIST's format, 642 of 700 images"
    assert facts.training_data_sha256 == "0" * 64
    assert facts.torch == str(torch.__version__)
    assert 0.1 < facts.temperature < 10 and facts.temperature != 1
    assert facts.accuracy is None


def test_it_says_how_long_it_will_take_and_a_line_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    first, *epochs = capsys.readouterr().out.splitlines()
    assert first.startswith("642 images; 0 teachers of 24 epochs, a student of 3 and 1; on cpu") and "minutes" in first
    assert [line.split()[2] for line in epochs] == ["1/3", "2/3", "3/3", "1/1"]
    assert all("validation loss" in line and "accuracy" in line for line in epochs)


def test_what_cannot_be_resumed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="there is no unfinished training to resume"):
        run(tmp_path, resume=True)
    with monkeypatch.context() as patch:
        StopAfter(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    with pytest.raises(CheckpointError, match="add --resume to go on with it"):
        run(tmp_path)
    with pytest.raises(CheckpointError, match="was begun with seed 3, not 4: resume with the same"):
        run(tmp_path, resume=True, seed=4)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "current_commit", lambda: "another")
        with pytest.raises(CheckpointError, match=r"was begun with commit .*, not another: resume with the same"):
            run(tmp_path, resume=True)
    unfinished = load_tensors(tmp_path / "training.pt")
    del unfinished["learners"][0]["optimizer"]
    (tmp_path / "training.pt").write_bytes(to_bytes(unfinished))
    with pytest.raises(CheckpointError, match="is damaged; remove it and leave --resume out to start"):
        run(tmp_path, resume=True)
    (tmp_path / "training.pt").write_bytes((tmp_path / "checkpoint.pt").read_bytes())
    with pytest.raises(CheckpointError, match="is not an unfinished training"):
        run(tmp_path, resume=True)


def test_every_digit_is_needed(tmp_path: Path) -> None:
    chosen = ~np.isin(DATA.labels, [3, 8])
    data = dataclasses.replace(DATA, images=DATA.images[chosen], labels=DATA.labels[chosen])
    with pytest.raises(DataError, match=r"holds no image of 3, 8; every digit is needed"):
        train(data, TINY, tmp_path, resume=False)


def test_the_defaults_are_those_of_the_released_model() -> None:
    released = load_checkpoint(REPOSITORY / "models/digits/1/checkpoint.pt").facts
    assert dataclasses.asdict(TrainingOptions()).items() <= dataclasses.asdict(released).items()
