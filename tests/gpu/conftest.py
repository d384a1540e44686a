"""Whether there is a GPU here, and images to ask it about."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from service.errors import DeviceMissing
from service.model.devices import CUDA
from service.model.runtime import Session, is_offered
from service.settings import bundled_models
from tests.mnist_files import find_mnist, read_images, small_digits

MODEL = (bundled_models() / "digits/1/model.onnx").read_bytes()
LARGEST = 1024


def open_session(device: str = "cuda", **others: Any) -> Session:
    """The released model on a device."""
    return Session(MODEL, device=device, threads=1, max_run_images=LARGEST, **others)


@pytest.fixture(scope="session")
def on_gpu() -> Session:
    """The model on the GPU, or a skipped test that says why there is none."""
    if not is_offered(CUDA):
        pytest.skip("this ONNX Runtime is for CPUs; `make gpu-check` runs these tests on a machine with a GPU")
    try:
        return open_session()
    except DeviceMissing as error:
        pytest.skip(f"no GPU to test: {error}")


@pytest.fixture(scope="session")
def images() -> npt.NDArray[np.uint8]:
    """10,000 digits, uint8 (N, 1, 28, 28): MNIST's test images, or scikit-learn's with noise where MNIST is missing."""
    folder = find_mnist()
    if folder:
        return read_images(folder, "t10k").reshape(-1, 1, 28, 28)
    digits = np.resize(small_digits("t10k")[0], (10_000, 1, 28, 28)).astype(np.int16)
    noise = np.random.default_rng(0).integers(-40, 41, digits.shape, np.int16)
    noisy: npt.NDArray[np.uint8] = np.clip(digits + noise, 0, 255).astype(np.uint8)
    return noisy
