"""Turns a checkpoint into one ONNX file: raw pixels in, calibrated probabilities out, its facts in its metadata.

Knows no data and no ONNX Runtime. The graph is written with onnx.helper, layer by layer, rather than traced by
torch.onnx.export: the network is a plain sequence of six kinds of layer, so this is shorter than what cleaning up a
traced graph takes. The nodes get names a person can read, the same checkpoint gives the same bytes whatever the version
of torch or the machine, and no stack trace or path of this machine is in the file. `verify` proves that it is right.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from model_export.network import CLASSES, IMAGE_SIZE, describe, fold_batch_norm

if TYPE_CHECKING:
    import torch

    from model_export.checkpoint import Checkpoint, Facts

NAME = "digits"
VERSION = "1"
LICENCE = "Apache-2.0; taught with MNIST (Yann LeCun and Corinna Cortes, CC BY-SA 3.0)"
OPSET, IR_VERSION = 18, 8  # old enough for every ONNX Runtime of the last years


def export(checkpoint: Checkpoint) -> bytes:
    """Return the ONNX file for a checkpoint.

    Input `image`: uint8 [N, 1, 28, 28], 0 paper to 255 ink. Outputs `probabilities`: float32 [N, 10], and
    `digit_score`: float32 [N], the log of the odds of being a digit (see `calibrate.digit_score`).
    """
    graph = Graph()
    pixels = graph.node("Cast", ["image"], "cast", to=TensorProto.FLOAT)
    value = graph.node("Div", [pixels, graph.constant("white", np.float32(255))], "scale")
    for layer in fold_batch_norm(checkpoint.network()):
        value = add_layer(graph, layer, value)
    axis = graph.constant("class_axis", np.array([1], np.int64))
    parts = graph.constant("digits_and_no_digit", np.array([CLASSES, 1], np.int64))
    digits, no_digit = graph.split([value, parts], "split", ["digit_logits", "no_digit_logit"], axis=1)
    energy = graph.node("ReduceLogSumExp", [digits, axis], "energy", keepdims=1)
    odds = graph.node("Sub", [energy, no_digit], "log_odds")
    graph.node("Squeeze", [odds, axis], "squeeze", "digit_score")
    temperature = graph.constant("temperature", np.float32(checkpoint.facts.temperature))
    calibrated = graph.node("Div", [digits, temperature], "calibrate")
    graph.node("Softmax", [calibrated], "softmax", "probabilities", axis=1)
    model = helper.make_model(
        graph.proto(), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="digitserve"
    )
    return _with_metadata(model, checkpoint)


def with_facts(model: bytes, checkpoint: Checkpoint) -> bytes:
    """Return the ONNX file with its metadata written anew from the checkpoint's facts, its graph as it was."""
    return _with_metadata(onnx.load_from_string(model), checkpoint)


def _with_metadata(model: onnx.ModelProto, checkpoint: Checkpoint) -> bytes:
    helper.set_model_props(model, metadata(checkpoint.facts, describe(checkpoint.network())))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


class Graph:
    """Nodes and constants of an ONNX graph as they come, each named once."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | np.generic) -> str:
        """Add a constant and return its name."""
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output, which is the node's unless told otherwise."""
        self._nodes.append(helper.make_node(kind, inputs, [output or name], name=name, **attributes))
        return output or name

    def split(self, inputs: list[str], name: str, outputs: list[str], **attributes: Any) -> list[str]:
        """Add a node that takes a value apart and return the names of its parts."""
        self._nodes.append(helper.make_node("Split", inputs, outputs, name=name, **attributes))
        return outputs

    def numbered(self, word: str) -> str:
        """Name the next layer of a kind: conv1, relu1, pool1, conv2 and so on."""
        return f"{word}{1 + sum(node.name.rstrip('0123456789') == word for node in self._nodes)}"

    def proto(self) -> onnx.GraphProto:
        """Return the whole graph, its batch dimension free and named N."""
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 1, IMAGE_SIZE, IMAGE_SIZE])
        probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])
        score = helper.make_tensor_value_info("digit_score", TensorProto.FLOAT, ["N"])
        return helper.make_graph(self._nodes, NAME, [image], [probabilities, score], self._constants)


def add_layer(graph: Graph, layer: nn.Module, value: str) -> str:
    """Add one layer of a folded network to the graph, reading `value`; return the name of its output.

    Raises:
        TypeError: The layer is of a kind that this export has no ONNX node for.
    """
    if isinstance(layer, nn.Conv2d):
        name = graph.numbered("conv")
        inputs = [value, *_parameters(graph, name, layer)]
        padding, strides = _pair(layer.padding), _pair(layer.stride)
        return graph.node(
            "Conv", inputs, name, kernel_shape=_pair(layer.kernel_size), pads=padding * 2, strides=strides
        )
    if isinstance(layer, nn.Linear):
        name = graph.numbered("fc")
        return graph.node("Gemm", [value, *_parameters(graph, name, layer)], name, transB=1)
    if isinstance(layer, nn.ReLU):
        return graph.node("Relu", [value], graph.numbered("relu"))
    if isinstance(layer, nn.MaxPool2d):
        size, stride = _pair(layer.kernel_size), _pair(layer.stride)
        ceil = int(layer.ceil_mode)
        return graph.node("MaxPool", [value], graph.numbered("pool"), kernel_shape=size, strides=stride, ceil_mode=ceil)
    if isinstance(layer, nn.Flatten):
        return graph.node("Flatten", [value], graph.numbered("flatten"), axis=1)
    raise TypeError(f"cannot export a layer of kind {type(layer).__name__}")


def metadata(facts: Facts, network: str) -> dict[str, str]:
    """Return what the file says about itself; what was measured on test images only once `verify` has done so."""
    measured = ("accuracy", "calibration_error", "tested_on")
    tested = {} if facts.accuracy is None else {name: str(getattr(facts, name)) for name in measured}
    return tested | {
        "name": NAME,
        "version": VERSION,
        "labels": json.dumps([str(digit) for digit in range(CLASSES)]),
        "network": network,
        "validation_accuracy": repr(facts.validation_accuracy),
        "reject_threshold": repr(facts.reject_threshold),
        "temperature": repr(facts.temperature),
        "licence": LICENCE,
        "trained_on": facts.trained_on,
        "training_data_sha256": facts.training_data_sha256,
        "seed": str(facts.seed),
        "epochs": f"{facts.chosen_epoch} of {facts.epochs + facts.finishing_epochs}",
        "teachers": f"{facts.teachers}, {facts.teacher_epochs} epochs each",
        "commit": facts.commit,
        "torch": facts.torch,
    }


def _parameters(graph: Graph, name: str, layer: nn.Conv2d | nn.Linear) -> list[str]:
    names = [graph.constant(f"{name}.weight", _array(layer.weight))]
    if layer.bias is not None:
        names.append(graph.constant(f"{name}.bias", _array(layer.bias)))
    return names


def _array(parameter: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.ascontiguousarray(parameter.detach().numpy(), dtype=np.float32)


def _pair(value: object) -> list[int]:
    """Write a layer's size as [height, width], however it was given.

    Raises:
        TypeError: It is a word, such as the padding "same".
    """
    if isinstance(value, int):
        return [value, value]
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"cannot export the size {value!r}; give numbers")
