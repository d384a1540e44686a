"""The layers of a model file: what they are, with which weights, and a model that shows what comes out of each.

The service has no onnx, which training alone needs; a model file is a
protobuf message, of which `protos/onnx_model.proto` names the part that is
read here. Knows no runtime.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from protos import onnx_model_pb2 as onnx
from service.errors import NotImplementedYet

Field = npt.NDArray[np.float32]

INPUT_SHAPE = (1, 28, 28)
KINDS = {
    "Conv": "conv",
    "Relu": "relu",
    "MaxPool": "max_pool",
    "Flatten": "flatten",
    "Gemm": "linear",
    "Softmax": "softmax",
}
# What stands before the layers, pixels / 255, and behind them: digit_score, and the probabilities by a softmax.
HEAD = ("Cast", "Div")
TAIL = ("Split", "ReduceLogSumExp", "Sub", "Squeeze", "Div", "Softmax")
# Of the nodes' attributes, those that are told, and those that would mean something else with another value.
SIZES = {"kernel_shape", "strides", "pads"}
SETTINGS = {"MaxPool": {"ceil_mode": 0}, "Gemm": {"transB": 1}, "Flatten": {"axis": 1}, "Softmax": {"axis": 1}}
FLOAT32 = 1


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        name: In the model file.
        kind: "conv", "relu", "max_pool", "flatten", "linear" or "softmax".
        value: Name of what comes out of it.
        shape: Of that, for one image.
        weights: float32 (output channels, input channels, rows, columns) of a conv, (units, inputs) of a linear layer.
        biases: float32, one for each output channel or unit.
        kernel: Rows and columns of the window of a conv or max_pool; empty for the others.
        stride: How far it moves down and across; empty for the others.
        padding: Rows and columns added at the top, left, bottom, right; empty for the others.
    """

    name: str
    kind: str
    value: str
    shape: tuple[int, ...]
    weights: Field | None = None
    biases: Field | None = None
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A model taken apart.

    Attributes:
        layers: In the order of the flow; the last one's value is the probabilities.
        temperature: What the logits are divided by before the softmax.
        logits: Name of what comes out of the last linear layer.
    """

    layers: tuple[Layer, ...]
    temperature: float
    logits: str


def take_apart(model: bytes) -> tuple[Anatomy, bytes]:
    """Find the layers of a model file, such as `python -m model_export export` writes.

    Returns:
        What they are, and the model file with what comes out of every layer among its outputs.

    Raises:
        NotImplementedYet: It is anything but a plain sequence of the layers of `KINDS`.
    """
    try:
        message = onnx.Model.FromString(model)
    except DecodeError:
        _refuse("it is no ONNX file")
    graph = message.graph
    nodes = list(graph.nodes)
    body = nodes[len(HEAD) : -len(TAIL)]
    kinds = tuple(node.kind for node in nodes)
    if kinds[: len(HEAD)] != HEAD or kinds[-len(TAIL) :] != TAIL:
        _refuse(f"its graph should begin with {', '.join(HEAD)} and end with {', '.join(TAIL)}")
    for before, node in pairwise([*nodes[: len(HEAD)], *body, nodes[-len(TAIL)]]):
        if node.inputs[0] != before.outputs[0]:
            _refuse(f"its node {node.name!r} does not read what the one before it made")
    constants = {constant.name: constant for constant in graph.constants}
    layers: list[Layer] = []
    shape: tuple[int, ...] = INPUT_SHAPE
    for node in [*body, nodes[-1]]:
        layers.append(_layer(node, constants, shape))
        shape = layers[-1].shape
    if not body or layers[-2].kind != "linear":
        _refuse("its last layer before the softmax should be a linear one")
    temperature = float(_values(nodes[-2].inputs[1], constants))
    known = {output.name for output in graph.outputs}
    for layer in layers:
        if layer.value not in known:
            graph.outputs.add(name=layer.value)
    return Anatomy(tuple(layers), temperature, layers[-2].value), message.SerializeToString()


def _layer(node: onnx.Node, constants: dict[str, onnx.Constant], shape: tuple[int, ...]) -> Layer:
    """One layer that reads values of this shape."""
    settings = {each.name: each.number for each in node.attributes if each.name not in SIZES}
    if node.kind not in KINDS or settings != SETTINGS.get(node.kind, {}) or len(node.outputs) != 1:
        _refuse(f"its node {node.name!r} is a {node.kind} with {settings}")
    kind, value = KINDS[node.kind], node.outputs[0]
    weights, biases = _parameters(node, constants)
    if kind in ("conv", "max_pool"):
        kernel, stride, padding = _window(node)
        channels = shape[0] if weights is None else len(weights)
        if len(shape) != 3 or (weights is not None and weights.shape[1:] != (shape[0], *kernel)):
            _refuse(f"its node {node.name!r} does not fit values of shape {shape}")
        rows, columns = (
            (length + padding[side] + padding[side + 2] - kernel[side]) // stride[side] + 1
            for side, length in enumerate(shape[1:])
        )
        return Layer(node.name, kind, value, (channels, rows, columns), weights, biases, kernel, stride, padding)
    if weights is not None:
        if weights.shape[1:] != shape:
            _refuse(f"its node {node.name!r} does not fit values of shape {shape}")
        return Layer(node.name, kind, value, (len(weights),), weights, biases)
    if kind == "flatten":
        return Layer(node.name, kind, value, (math.prod(shape),))
    # The softmax is that of the digits, without "no digit".
    return Layer(node.name, kind, value, (shape[0] - 1,) if kind == "softmax" else shape)


def _window(node: onnx.Node) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Kernel, stride and padding."""
    sizes = {each.name: tuple(each.numbers) for each in node.attributes if each.name in SIZES}
    kernel, stride = sizes.get("kernel_shape", ()), sizes.get("strides", (1, 1))
    padding = sizes.get("pads", (0, 0, 0, 0))
    if (len(kernel), len(stride), len(padding)) != (2, 2, 4):
        _refuse(f"its node {node.name!r} has the sizes {sizes}")
    return kernel, stride, padding


def _parameters(node: onnx.Node, constants: dict[str, onnx.Constant]) -> tuple[Field | None, Field | None]:
    """Weights and biases of a node, as far as it has them."""
    if node.kind not in ("Conv", "Gemm"):
        return None, None
    names = node.inputs[1:]
    return _values(names[0], constants), _values(names[1], constants) if len(names) > 1 else None


def _values(name: str, constants: dict[str, onnx.Constant]) -> Field:
    """A constant as an array that cannot be written."""
    constant = constants.get(name)
    if constant is None or constant.data_type != FLOAT32 or len(constant.raw) != 4 * math.prod(constant.shape):
        _refuse(f"its constant {name!r} is not float32 in raw bytes")
    return np.frombuffer(constant.raw, "<f4").reshape(constant.shape)


def _refuse(reason: str) -> NoReturn:
    raise NotImplementedYet(
        f"this model cannot be explained: {reason}; Explain knows a plain sequence of {', '.join(KINDS)} "
        "as `python -m model_export export` writes it"
    )
