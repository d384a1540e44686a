"""The ONNX Runtime session: what it accepts, and that providers are as asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from service import runtime
from service.errors import DeviceMissing, ModelUnusable, RuntimeMissing
from service.runtime import CPU, CUDA, Session
from service.settings import bundled_models

RELEASED = (bundled_models() / "digits/1/model.onnx").read_bytes()


def session(model: bytes = RELEASED, device: str = "cpu") -> Session:
    return Session(model, device=device, threads=1, max_run_images=8)


def model_of(
    input_type: int = TensorProto.UINT8, input_shape: Sequence[str | int] = ("N", 1, 28, 28), score: str = "digit_score"
) -> bytes:
    """A model that answers 0.1 for everything, with a signature to be varied."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [784, 10], [0.0] * 7840)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["pixels", "one"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
            helper.make_node("ReduceMax", ["logits"], [score], axes=[1], keepdims=0),
        ],
        "digits",
        [helper.make_tensor_value_info("image", input_type, input_shape)],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10]),
            helper.make_tensor_value_info(score, TensorProto.FLOAT, ["N"]),
        ],
        [one],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("images", [1, 7, 32])
def test_the_released_model_answers_any_number_of_images(images: int) -> None:
    probabilities, scores = session().run(np.zeros((images, 1, 28, 28), np.uint8))
    assert probabilities.shape == (images, 10) and probabilities.dtype == np.float32
    assert scores.shape == (images,) and scores.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_without_a_gpu_the_cpu_is_asked_for_and_got(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    made = session(device=device)
    assert made.providers_asked == made.providers_got == [CPU]


def test_asking_for_a_gpu_that_is_not_offered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(DeviceMissing, match=r"--device cuda needs CUDAExecutionProvider, ONNX Runtime offers only CPU"):
        session(device="cuda")


def test_a_gpu_that_is_offered_but_not_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the driver is broken: ONNX Runtime quietly takes the CPU, we do not."""
    real: Callable[..., onnxruntime.InferenceSession] = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda model, options, providers, **_: real(model, options, providers=[CPU])
    )
    for device in ("cuda", "auto"):
        with pytest.raises(DeviceMissing, match=f"--device {device} asks for CUDA.*took CPUExecutionProvider"):
            session(device=device)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (b"", "ONNX Runtime cannot load the model"),
        (b"not a model", "ONNX Runtime cannot load the model"),
        (RELEASED[:1000], "ONNX Runtime cannot load the model"),
        (model_of(input_type=TensorProto.FLOAT), "tensor(float)"),
        (model_of(input_shape=("N", 28, 28)), "['N', 28, 28]"),
        (model_of(input_shape=(4, 1, 28, 28)), "[4, 1, 28, 28]"),
        (model_of(score="certainty"), "certainty"),
    ],
)
def test_another_file_or_another_signature_is_refused(model: bytes, text: str) -> None:
    with pytest.raises(ModelUnusable) as error:
        session(model)
    assert text in str(error.value)


def test_a_model_that_fails_or_answers_nonsense_is_found_when_it_is_warmed() -> None:
    model = onnx.load_model_from_string(model_of())
    model.graph.initializer[0].CopyFrom(helper.make_tensor("one", TensorProto.FLOAT, [900, 10], [0.0] * 9000))
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 900]))
    model.graph.node.insert(1, helper.make_node("Reshape", ["flat", "shape"], ["reshaped"]))
    model.graph.node[2].input[0] = "reshaped"
    with pytest.raises(ModelUnusable, match="the model fails on 1 blank images"):
        session(model.SerializeToString())
    model = onnx.load_model_from_string(model_of())
    model.graph.node[1].attribute[0].i = TensorProto.FLOAT
    model.graph.node.insert(1, helper.make_node("Concat", ["flat", "flat"], ["twice"], axis=0))
    model.graph.node[2].input[0] = "twice"
    with pytest.raises(ModelUnusable, match=r"answers 1 images with shapes \(2, 10\) and \(2,\); expected \(1, 10\)"):
        session(model.SerializeToString())
    model = onnx.load_model_from_string(model_of())
    model.graph.initializer[0].CopyFrom(helper.make_tensor("one", TensorProto.FLOAT, [784, 10], [float("nan")] * 7840))
    with pytest.raises(ModelUnusable, match="not finite"):
        session(model.SerializeToString())


def test_a_model_with_the_right_signature_is_accepted() -> None:
    probabilities, _ = session(model_of()).run(np.zeros((2, 1, 28, 28), np.uint8))
    np.testing.assert_allclose(probabilities, 0.1)


def test_the_metadata_are_read() -> None:
    model = onnx.load_model_from_string(model_of())
    helper.set_model_props(model, {"network": "none"})
    assert session(model.SerializeToString()).metadata == {"network": "none"}


def test_a_missing_onnxruntime_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeMissing, match=r"pip install 'digitserve\[cpu\]'"):
        runtime._import_onnxruntime()
