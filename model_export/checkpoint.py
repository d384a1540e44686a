"""A trained model on disk: its weights and the facts it was made from. Knows no data, no training, no ONNX."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model_export.network import build_network


class CheckpointError(Exception):
    """A checkpoint cannot be used; the text says which file, what is wrong and what would be right."""


@dataclass(frozen=True)
class Facts:
    """What a model was made from and what was measured on it.

    Attributes:
        seed: Of the weights' start and of every epoch's order and distortion.
        epochs: Length of the training that was asked for.
        teachers: Larger networks that taught this one.
        teacher_epochs: Length of each one's training.
        finishing_epochs: Epochs on little distorted images after those.
        chosen_epoch: The epoch, from 1 and on through the finishing ones, that did best on the validation part.
        batch_size: Images a training step.
        threads: CPU threads of the training; another number rounds differently.
        device: "cpu" or "cuda".
        precision: What convolutions and products were computed in, "bfloat16" or "float32".
        torch: The version of torch.
        commit: Of the code, "-dirty" behind it if files had changed since, "unknown" outside git.
        trained_on: The images, for a human reader.
        training_data_sha256: Of the uncompressed training images and labels, one after the other.
        validation_accuracy: Share of the validation part that is read rightly, 0 to 1.
        temperature: What the logits are divided by before the softmax.
        reject_threshold: A digit_score below it says "not a digit"; 99 % of the validation part lie above.
        accuracy: Share of the test set that is read rightly, 0 to 1; None until `verify` has measured it.
        calibration_error: Expected calibration error on the test set, 0 to 1; likewise.
        tested_on: The images that these two are about, for a human reader.
    """

    seed: int
    epochs: int
    teachers: int
    teacher_epochs: int
    finishing_epochs: int
    chosen_epoch: int
    batch_size: int
    threads: int
    device: str
    precision: str
    torch: str
    commit: str
    trained_on: str
    training_data_sha256: str
    validation_accuracy: float
    temperature: float
    reject_threshold: float
    accuracy: float | None = None
    calibration_error: float | None = None
    tested_on: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Weights of the network (its state_dict) and the facts about them."""

    weights: dict[str, torch.Tensor]
    facts: Facts

    def network(self) -> torch.nn.Sequential:
        """Build the network with these weights, ready to predict."""
        network = build_network()
        network.load_state_dict(self.weights)
        return network.eval()

    def tested(self, accuracy: float, calibration_error: float, tested_on: str) -> Checkpoint:
        """Return the same checkpoint with what was measured, and on which images."""
        measured = {"accuracy": accuracy, "calibration_error": calibration_error, "tested_on": tested_on}
        return Checkpoint(self.weights, dataclasses.replace(self.facts, **measured))  # type: ignore[arg-type]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write the checkpoint; the same content gives the same bytes."""
    write_atomically(path, to_bytes({"weights": checkpoint.weights, "facts": dataclasses.asdict(checkpoint.facts)}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; runs no code from the file.

    Raises:
        CheckpointError: The file is missing, is not such a checkpoint or its weights are another network's.
    """
    content = load_tensors(path)
    try:
        checkpoint = Checkpoint(content["weights"], Facts(**content["facts"]))
        checkpoint.network()
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is no checkpoint of `train` for this network: {reason}") from None
    return checkpoint


def to_bytes(content: dict[str, Any]) -> bytes:
    """Serialise tensors and plain values with torch.save; in memory, since a file's name would get into the bytes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def load_tensors(path: Path) -> dict[str, Any]:
    """Read what `to_bytes` made, tensors to the CPU; runs no code from the file.

    Raises:
        CheckpointError: The file is missing or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}; `python -m model_export train` makes one") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint; `python -m model_export train` makes one"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a checkpoint of `train`")
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write the file so that a reader, or a crash at any moment, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def current_commit() -> str:
    """Name the commit of this code, "-dirty" behind it if tracked files have changed, or "unknown" outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", *arguments], cwd=here, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.strip()
