"""The whole path on the small digits: train, export, verify, serve, ask; every step the real command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from service.client import Client, Prediction
from tests.conftest import REPOSITORY
from tests.mnist_files import write_small_mnist
from tests.pictures import Pixels
from tests.server_process import ServerProcess


def step(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "model_export", *arguments], capture_output=True, text=True, cwd=REPOSITORY, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_images_to_answers(tmp_path: Path, digits: tuple[Pixels, Pixels]) -> None:
    data = write_small_mnist(tmp_path / "data")
    checkpoint, model = tmp_path / "checkpoint.pt", tmp_path / "model.onnx"
    step(
        "train",
        "--data-dir",
        data,
        "--out",
        tmp_path,
        "--epochs",
        "8",
        "--teachers",
        "0",
        "--finishing-epochs",
        "1",
        "--batch-size",
        "32",
    )
    step("export", "--checkpoint", checkpoint, "--out", model)
    verified = step(
        *("verify", "--data-dir", data, "--checkpoint", checkpoint, "--model", model),
        *("--models-dir", tmp_path / "models", "--floor", "0.8"),
    )
    assert "accuracy" in verified
    with ServerProcess("--models-dir", str(tmp_path / "models")) as server, Client(server.grpc_address) as client:
        results = client.classify_batch(list(digits[0]))
        info = client.model()
    guesses = [result.digit for result in results if isinstance(result, Prediction)]
    assert (np.array(guesses) == digits[1]).mean() == info.accuracy >= 0.8
