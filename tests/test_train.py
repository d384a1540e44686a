"""Training: reproducible, resumable, interruptible, and blind to the test set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from model_export import train as train_module
from model_export.checkpoint import CheckpointError, load_checkpoint, load_tensors, to_bytes
from model_export.train import TrainingOptions, epoch_seed, learning_rate, train
from tests.conftest import REPOSITORY
from tests.training import TINY, small_set, tiny_checkpoint

DATA = small_set("train", 700)


def run(folder: Path, *, resume: bool = False, **changes: Any) -> bytes:
    """Train with TINY's options; returns the checkpoint file."""
    train(DATA, dataclasses.replace(TINY, **changes), folder, resume=resume)
    return (folder / "checkpoint.pt").read_bytes()


class StopAfter:
    """Ctrl-C after so many epochs, at the moment when the next one begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, epochs: int):
        self._epochs = epochs
        self._real = train_module._run_epoch
        monkeypatch.setattr(train_module, "_run_epoch", self)

    def __call__(self, progress: Any, *rest: Any) -> str:
        if progress.epochs_done == self._epochs:
            raise KeyboardInterrupt
        return self._real(progress, *rest)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = run(tmp_path / "first")
    assert run(tmp_path / "again") == first
    assert run(tmp_path / "other", seed=4) != first


def test_resuming_gives_what_was_not_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        StopAfter(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts")
    interrupted = load_checkpoint(tmp_path / "parts" / "checkpoint.pt")
    assert interrupted.facts.chosen_epoch == 1
    assert run(tmp_path / "parts", resume=True) == whole
    assert not (tmp_path / "parts" / "training.pt").exists()


def test_ctrl_c_before_the_first_epoch_ended_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StopAfter(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_learns_and_records_what_it_was_made_from() -> None:
    facts = tiny_checkpoint().facts
    assert facts.validation_accuracy > 0.5
    assert (facts.seed, facts.epochs, facts.batch_size, facts.threads) == (3, 3, 64, 1)
    assert facts.trained_on == "a training set in MNIST's format, 642 of 700 images"
    assert facts.training_data_sha256 == "0" * 64
    assert facts.torch == str(torch.__version__)
    assert 0.1 < facts.temperature < 10 and facts.temperature != 1
    assert facts.accuracy is None


def test_it_says_how_long_it_will_take_and_a_line_an_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    first, *epochs = capsys.readouterr().out.splitlines()
    assert first.startswith("642 images, 3 epochs of about ") and "minutes" in first
    assert [line.split()[1] for line in epochs] == ["1/3", "2/3", "3/3"]
    assert all("loss" in line and "validation accuracy" in line for line in epochs)


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
    del unfinished["optimizer"]
    (tmp_path / "training.pt").write_bytes(to_bytes(unfinished))
    with pytest.raises(CheckpointError, match="is damaged; remove it and leave --resume out to start"):
        run(tmp_path, resume=True)
    (tmp_path / "training.pt").write_bytes((tmp_path / "checkpoint.pt").read_bytes())
    with pytest.raises(CheckpointError, match="is not an unfinished training"):
        run(tmp_path, resume=True)


def test_the_learning_rate_rises_and_falls_once() -> None:
    rates = [learning_rate(step, 200) for step in range(200)]
    peak = rates.index(max(rates))
    assert rates[peak] == train_module.PEAK_LEARNING_RATE
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.001


def test_the_epoch_with_the_lowest_validation_loss_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.zeros(4).long()
    progress = train_module._start(TINY, torch.device("cpu"))
    for epoch, sureness in enumerate((1.0, 3.0, 2.0), start=1):
        monkeypatch.setattr(train_module, "predict", lambda *_, sure=sureness: torch.eye(10)[labels] * sure)
        progress.epochs_done = epoch
        train_module._keep_if_best(progress, (torch.zeros(4, 28, 28), labels))
    assert progress.best["epoch"] == 2


def test_every_epoch_of_every_seed_has_randomness_of_its_own() -> None:
    assert len({epoch_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


def test_the_defaults_are_those_of_the_released_model() -> None:
    released = load_checkpoint(REPOSITORY / "models/digits/1/checkpoint.pt").facts
    assert dataclasses.asdict(TrainingOptions()).items() <= dataclasses.asdict(released).items()
