"""Small models whose answers tell which one gave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from model_export.publish import manifest
from model_export.verify import Golden

FACTS = {
    "network": "a constant",
    "accuracy": "0.1",
    "calibration_error": "0.9",
    "tested_on": "nothing",
    "licence": "Apache-2.0",
    "commit": "unknown",
    "trained_on": "nothing",
    "reject_threshold": "-100",
}
SURENESS = 9.0  # the logit of the digit that such a model answers; of the others it is 0


def answering(digit: int) -> bytes:
    """A model that reads every image as one digit."""
    bias = np.where(np.arange(10) == digit, SURENESS, 0).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Gemm", ["pixels", "weights", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
            helper.make_node("ReduceMax", ["logits"], ["digit_score"], axes=[1], keepdims=0),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 1, 28, 28])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10]),
            helper.make_tensor_value_info("digit_score", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(np.zeros((784, 10), np.float32), "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, FACTS)
    data: bytes = model.SerializeToString()
    return data


def overflowing() -> bytes:
    """A model with a chain of functions so deep that ONNX Runtime overflows its stack, and ends the process."""
    depth = 3000
    model = ModelProto.FromString(answering(1))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("deep", 1)]
    model.opset_import.append(opsets[1])
    for level in range(depth):
        inner = helper.make_node(f"f{level + 1}", ["x"], ["y"], domain="deep")
        nodes = [inner if level + 1 < depth else helper.make_node("Identity", ["x"], ["y"])]
        model.functions.append(helper.make_function("deep", f"f{level}", ["x"], ["y"], nodes, opsets))
    model.graph.node[2].input[0] = "deep pixels"
    model.graph.node.insert(2, helper.make_node("f0", ["pixels"], ["deep pixels"], domain="deep"))
    data: bytes = model.SerializeToString()
    return data


def of_tomorrow() -> bytes:
    """A model for a version of ONNX that does not exist; ONNX Runtime names its own source over it."""
    model = ModelProto.FromString(answering(1))
    model.opset_import[0].version = 9999
    data: bytes = model.SerializeToString()
    return data


def not_text() -> bytes:
    """A model with metadata that are no UTF-8, of which ONNX Runtime takes no notice."""
    return answering(1).replace(b"a constant", b"\xff constant")


def golden(data: bytes) -> Golden:
    """What such a model answers to a blank image; of any other file, something."""
    digit = next((digit for digit in range(10) if data == answering(digit)), 0)
    weights = np.exp(np.where(np.arange(10) == digit, SURENESS, 0))
    probabilities = (weights / weights.sum()).astype(np.float32)[None]
    return Golden(np.zeros((1, 28, 28), np.uint8), probabilities, np.array([SURENESS], np.float32))


def put(models: Path, version: int, data: bytes) -> None:
    """Publish a version as it should be done: under another name first, so that nobody reads half of it."""
    folder = models / "digits" / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("manifest.json", manifest(data, golden(data))), ("model.onnx", data)):
        (folder / "new").write_bytes(content)
        (folder / "new").rename(folder / name)
