"""Verification: what passes, what is refused and why, and what is published."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from model_export.checkpoint import Checkpoint, load_checkpoint
from model_export.data import load_test_images
from model_export.export import export
from model_export.publish import publish
from model_export.verify import MNIST_BOUNDS, Golden, RefusedError, Verification, check_bounds, run_onnx, verify
from tests.conftest import REPOSITORY
from tests.training import small_set, tiny_checkpoint

TEST = small_set("t10k", 60)


def edited(change: Callable[[onnx.ModelProto], None]) -> bytes:
    """The tiny model with something changed in it."""
    model = onnx.load_from_string(export(tiny_checkpoint()))
    change(model)
    return bytes(model.SerializeToString())


def scale_constant(name: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        (constant,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        values = numpy_helper.to_array(constant) * np.float32(factor)
        constant.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))

    return change


def shift_score(model: onnx.ModelProto) -> None:
    """Add the temperature to the digit score, and to nothing else."""
    (squeeze,) = (node for node in model.graph.node if node.name == "squeeze")
    squeeze.output[0] = "odds"
    model.graph.node.append(onnx.helper.make_node("Add", ["odds", "temperature"], ["digit_score"]))


def rename_score(model: onnx.ModelProto) -> None:
    (squeeze,) = (node for node in model.graph.node if node.name == "squeeze")
    squeeze.output[0] = model.graph.output[1].name = "energy_score"


def test_an_honest_model_passes_and_is_measured_at_every_batch_size() -> None:
    result = verify(tiny_checkpoint(), export(tiny_checkpoint()), TEST, accuracy_floor=0.0)
    measured = [(parity.images, parity.batch_size) for parity in result.parities]
    assert measured == [("test", 1), ("test", 7), ("test", 32), ("test", 512), ("distorted", 32)]
    assert all(parity.probability_difference <= 1e-5 for parity in result.parities)
    assert all(parity.different_digits == 0 for parity in result.parities)
    table = result.table()
    assert f"accuracy {result.accuracy:.2%}" in table and "of 60 test images wrong" in table
    assert [line.split()[1] for line in table.splitlines()[1:6]] == ["1", "7", "32", "512", "32"]


def test_the_accuracy_is_the_share_of_right_digits() -> None:
    session = onnxruntime.InferenceSession(export(tiny_checkpoint()), providers=["CPUExecutionProvider"])
    guesses = run_onnx(session, TEST.images, 32)[0].argmax(axis=1).astype(np.uint8)
    guesses[:3] = (guesses[:3] + 1) % 10
    result = verify(
        tiny_checkpoint(), export(tiny_checkpoint()), dataclasses.replace(TEST, labels=guesses), accuracy_floor=0.95
    )
    assert result.accuracy == 57 / 60


def test_below_the_floor_is_refused_in_one_line() -> None:
    wrong = dataclasses.replace(TEST, labels=(TEST.labels + 1) % 10)
    with pytest.raises(RefusedError, match=r"^accuracy \d+\.\d\d% on 60 test images is below the floor 99\.50%$"):
        verify(tiny_checkpoint(), export(tiny_checkpoint()), wrong, accuracy_floor=0.995)


GOOD = Verification(
    images=10_000,
    tested_on="MNIST",
    parities=(),
    accuracy=0.998,
    rejected=0.01,
    calibration_error=0.001,
    scribbles_rejected=0.95,
    golden=Golden(np.zeros((0, 28, 28), np.uint8), np.zeros((0, 10), np.float32), np.zeros(0, np.float32)),
)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"accuracy": 0.9969}, r"accuracy 99\.69% on 10,000 test images is below the floor 99\.70%"),
        ({"accuracy": float("nan")}, "accuracy nan%"),
        ({"calibration_error": 0.004}, r"expected calibration error 0\.0040 is above 0\.0030"),
        ({"rejected": 0.021}, r"2\.10% of the test digits are rejected, more than 2\.00%"),
        ({"scribbles_rejected": 0.8}, r"80\.00% of 1,000 scribbles are rejected, fewer than 90\.00%"),
    ],
)
def test_each_bound_of_mnist_is_kept(change: dict[str, float], text: str) -> None:
    check_bounds(GOOD, MNIST_BOUNDS)
    with pytest.raises(RefusedError, match=text):
        check_bounds(dataclasses.replace(GOOD, **change), MNIST_BOUNDS)  # type: ignore[arg-type]


def test_the_floor_for_mnist_is_not_meant_for_other_images() -> None:
    with pytest.raises(
        RefusedError, match="these 60 images are not MNIST's test set: give them a --floor of their own"
    ):
        verify(tiny_checkpoint(), export(tiny_checkpoint()), TEST)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            lambda: edited(scale_constant("temperature", 1.01)),
            "on the test images at batch size 1 .* differ by .* in a probability",
        ),
        (
            lambda: edited(scale_constant("temperature", float("nan"))),
            "differ by nan in a probability|different digits",
        ),
        (lambda: edited(scale_constant("fc2.weight", -1.0)), r"at batch size 1 .* read \d+ images as different digits"),
        (lambda: edited(shift_score), "differ by .* in a digit_score, more than 1e-03"),
        (lambda: edited(rename_score), "are image, probabilities, energy_score; expected image, probabilities, digit_"),
        (lambda: b"no model", "ONNX Runtime cannot load the model"),
    ],
    ids=["temperature", "nan", "digits", "score", "names", "garbage"],
)
def test_a_file_that_is_not_its_checkpoint_is_refused(model: Callable[[], bytes], text: str) -> None:
    with pytest.raises(RefusedError, match=text):
        verify(tiny_checkpoint(), model(), TEST, accuracy_floor=0.0)


def test_what_is_published_carries_its_accuracy_and_comes_from_its_checkpoint(tmp_path: Path) -> None:
    model = export(tiny_checkpoint())
    result = verify(tiny_checkpoint(), model, TEST, accuracy_floor=0.0)
    path = publish(tiny_checkpoint(), model, result, b"[]", tmp_path)
    assert path == tmp_path / "digits" / "1" / "model.onnx"
    assert sorted(file.name for file in path.parent.iterdir()) == [
        *("checkpoint.pt", "manifest.json", "model.onnx", "training.json"),
    ]
    published: Checkpoint = load_checkpoint(path.parent / "checkpoint.pt")
    assert published.facts.accuracy == result.accuracy
    assert path.read_bytes() == export(published)
    assert onnx.load_from_string(path.read_bytes()).graph == onnx.load_from_string(model).graph


def test_the_released_model_reads_mnist(mnist: Path) -> None:
    test = load_test_images(mnist)
    released = (REPOSITORY / "models" / "digits" / "1" / "model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(released, providers=["CPUExecutionProvider"])
    accuracy = (run_onnx(session, test.images, 32)[0].argmax(axis=1) == test.labels).mean()
    stated = {prop.key: prop.value for prop in onnx.load_from_string(released).metadata_props}["accuracy"]
    assert accuracy == pytest.approx(float(stated), abs=2e-4)
    assert accuracy >= 0.997


def test_the_released_model_is_its_checkpoint_on_the_small_digits() -> None:
    folder = REPOSITORY / "models" / "digits" / "1"
    checkpoint = load_checkpoint(folder / "checkpoint.pt")
    result = verify(checkpoint, (folder / "model.onnx").read_bytes(), TEST, accuracy_floor=0.0)
    assert max(parity.probability_difference for parity in result.parities) <= 1e-5
    assert torch.isfinite(torch.tensor(result.calibration_error))
