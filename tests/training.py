"""A tiny training on the small digits, for the tests of what comes after it."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

from model_export.checkpoint import Checkpoint
from model_export.data import LabelledImages
from model_export.train import TrainingOptions, train
from tests.mnist_files import small_digits

TINY = TrainingOptions(epochs=3, teachers=0, finishing_epochs=1, batch_size=32, seed=3)


def small_set(part: str, count: int | None = None) -> LabelledImages:
    """The small digits as `model_export.data` gives them."""
    images, labels = small_digits(part)
    return LabelledImages(images[:count], labels[:count], sha256="0" * 64, is_mnist=False)


def tiny_log() -> bytes:
    """How the epochs of such a training went, as `train` writes it."""
    epoch = {"loss": 0.9, "validation_loss": 0.8, "validation_accuracy": 0.7, "seconds": 60.0}
    return json.dumps({"teacher 1": [epoch], "student": [epoch] * TINY.epochs, "finisher": [epoch]}).encode()


@functools.cache
def tiny_checkpoint() -> Checkpoint:
    """A network trained for a few seconds: better than chance, no more."""
    with tempfile.TemporaryDirectory() as folder:
        return train(small_set("train", 700), TINY, Path(folder), resume=False)
