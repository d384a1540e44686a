"""Checkpoint files: written whole, read without running code, refused by name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from model_export import checkpoint as module
from model_export.checkpoint import (
    CheckpointError,
    current_commit,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    to_bytes,
    write_atomically,
)
from tests.training import tiny_checkpoint


class NotATensor:
    """Something that only unpickling code could bring back."""


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "checkpoint.pt"
    save_checkpoint(tiny_checkpoint(), path)
    found = load_checkpoint(path)
    assert found.facts == tiny_checkpoint().facts
    assert found.weights.keys() == tiny_checkpoint().weights.keys()
    assert all(torch.equal(found.weights[name], weight) for name, weight in tiny_checkpoint().weights.items())


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    with pytest.raises(CheckpointError, match=r"there is no file .*file\.pt"):
        load_checkpoint(path)
    for content in (b"", b"hello", to_bytes({"weights": NotATensor()})):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"file\.pt cannot be read as a checkpoint"):
            load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list, expected a checkpoint"):
        load_tensors(path)
    path.write_bytes(to_bytes({"weights": {}, "facts": {}}))
    with pytest.raises(CheckpointError, match="is no checkpoint of `train` for this network"):
        load_checkpoint(path)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full_disk(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


def test_the_commit_is_that_of_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    monkeypatch.setattr(module, "__file__", str(tmp_path / "checkpoint.py"))
    assert current_commit() == "unknown"
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    commit = current_commit()
    assert len(commit) == 40
    (tmp_path / "file").write_text("two")
    assert current_commit() == f"{commit}-dirty"
