"""All 10,000 MNIST test images through the server, raw and as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from service.client import Client, ImageLike, Prediction
from service.pictures.images import ImageReader
from service.settings import bundled_models
from tests.mnist_files import read_images, read_labels
from tests.pictures import encode

BATCH = 500
Probabilities = npt.NDArray[np.float32]


def ask(client: Client, images: list[ImageLike]) -> Probabilities:
    """Probabilities of all images, through ClassifyBatch."""
    rows = []
    for start in range(0, len(images), BATCH):
        for result in client.classify_batch(images[start : start + BATCH]):
            assert isinstance(result, Prediction)
            rows.append(result.probabilities)
    return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def raw_probabilities(client: Client, mnist: Path) -> Probabilities:
    return ask(client, list(read_images(mnist, "t10k")))


def test_raw_answers_are_those_of_onnxruntime_in_process(raw_probabilities: Probabilities, mnist: Path) -> None:
    session = onnxruntime.InferenceSession(str(bundled_models() / "digits/1/model.onnx"))
    images = read_images(mnist, "t10k")[:, None]
    expected = np.concatenate(
        [
            session.run(["probabilities"], {"image": images[start : start + BATCH]})[0]
            for start in range(0, 10_000, BATCH)
        ]
    )
    assert np.abs(raw_probabilities - expected).max() <= 1e-6


def test_raw_images_are_read_rightly(raw_probabilities: Probabilities, mnist: Path) -> None:
    assert (raw_probabilities.argmax(1) == read_labels(mnist, "t10k")).mean() >= 0.997


def test_the_same_images_as_png_files_get_the_same_answers(
    client: Client, raw_probabilities: Probabilities, mnist: Path
) -> None:
    files: list[ImageLike] = [encode(image) for image in read_images(mnist, "t10k")]
    assert np.abs(ask(client, files) - raw_probabilities).max() <= 1e-6


def test_png_files_reach_the_network_bit_for_bit(mnist: Path) -> None:
    reader = ImageReader(max_bytes=10_000, max_pixels=784)
    for image in read_images(mnist, "t10k")[::5]:
        assert np.array_equal(reader.read(encode(image)), image)
