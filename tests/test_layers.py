"""A model file is taken apart rightly, and one that cannot be explained is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from model_export.checkpoint import load_checkpoint
from model_export.export import export
from protos import onnx_model_pb2
from service.errors import NotImplementedYet
from service.explanation.layers import take_apart
from service.model.runtime import LayerSession
from tests.conftest import REPOSITORY

CHECKPOINT = REPOSITORY / "models" / "digits" / "1" / "checkpoint.pt"
MODEL = CHECKPOINT.with_name("model.onnx").read_bytes()
Message = onnx_model_pb2.Model


def test_the_layers_are_those_that_onnx_finds() -> None:
    graph = onnx.load_from_string(MODEL).graph
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    anatomy, _ = take_apart(MODEL)
    nodes = {node.name: node for node in graph.node}
    assert [layer.name for layer in anatomy.layers] == [
        name for name in nodes if name.rstrip("1234") in ("conv", "relu", "pool", "flatten", "fc", "softmax")
    ]
    for layer in anatomy.layers:
        found = {each.name: tuple(each.ints) for each in nodes[layer.name].attribute}
        assert layer.kernel == found.get("kernel_shape", ()) and layer.stride == found.get("strides", ())
        assert not any(layer.padding)
        names = nodes[layer.name].input[1:]
        assert (layer.weights is None) == (not names)
        if layer.weights is not None and layer.biases is not None:
            np.testing.assert_array_equal(layer.weights, weights[names[0]])
            np.testing.assert_array_equal(layer.biases, weights[names[1]])
    assert anatomy.temperature == weights["temperature"]


def test_the_shapes_are_those_of_what_comes_out() -> None:
    anatomy, model = take_apart(MODEL)
    images = np.zeros((2, 1, 28, 28), np.uint8)
    values = LayerSession(model).run([layer.value for layer in anatomy.layers], images)
    assert [value.shape[1:] for value in values] == [layer.shape for layer in anatomy.layers]


def test_a_model_that_was_taken_apart_answers_as_before() -> None:
    _, model = take_apart(MODEL)
    images = np.random.default_rng(1).integers(0, 256, (5, 1, 28, 28), np.uint8)
    names = ["probabilities", "digit_score"]
    before, after = (LayerSession(each).run(names, images) for each in (MODEL, model))
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    np.testing.assert_allclose(after[1], before[1], atol=1e-4)


class WithPadding:
    """What `export` needs of a checkpoint: a network with padding, strides and an odd window."""

    facts = load_checkpoint(CHECKPOINT).facts

    def network(self) -> nn.Sequential:
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 4, (3, 5), padding=(1, 2), stride=(2, 1)),  # -> [4, 14, 28]
            nn.ReLU(),
            nn.MaxPool2d((3, 2), stride=(2, 3)),  # -> [4, 6, 9]
            nn.Flatten(),
            nn.Linear(216, 11),
        )


def test_padding_and_strides_are_told_and_what_comes_out_is_pytorchs() -> None:
    network = WithPadding().network().eval()
    anatomy, model = take_apart(export(WithPadding()))  # type: ignore[arg-type]
    convolution, _, pool, *_ = anatomy.layers
    assert (convolution.kernel, convolution.stride, convolution.padding) == ((3, 5), (2, 1), (1, 2, 1, 2))
    assert (pool.kernel, pool.stride, pool.padding) == ((3, 2), (2, 3), (0, 0, 0, 0))
    images = np.random.default_rng(1).integers(0, 256, (2, 1, 28, 28), np.uint8)
    found = LayerSession(model).run([layer.value for layer in anatomy.layers], images)
    value = torch.tensor(images) / 255
    for layer, part, values in zip(anatomy.layers, network, found, strict=False):
        value = part(value)
        assert values.shape[1:] == layer.shape
        np.testing.assert_allclose(values, value.detach().numpy(), atol=1e-5)


def node(message: Message, name: str) -> onnx_model_pb2.Node:
    return next(each for each in message.graph.nodes if each.name == name)


def as_sigmoid(message: Message) -> None:
    node(message, "relu2").kind = "Sigmoid"


def dilated(message: Message) -> None:
    node(message, "conv2").attributes.add(name="dilations", numbers=[2, 2])


def transposed(message: Message) -> None:
    node(message, "fc1").attributes[0].number = 0


def with_a_shortcut(message: Message) -> None:
    node(message, "conv3").inputs[0] = "pool1"


def without_temperature(message: Message) -> None:
    del message.graph.nodes[-2]


def with_double_weights(message: Message) -> None:
    next(each for each in message.graph.constants if each.name == "conv1.weight").data_type = 11


def for_fewer_channels(message: Message) -> None:
    constant = next(each for each in message.graph.constants if each.name == "conv2.weight")
    constant.shape[:2] = [128, 8]


def without_layers(message: Message) -> None:
    del message.graph.nodes[2:-6]


def of_one_dimension(message: Message) -> None:
    window = next(each for each in node(message, "pool1").attributes if each.name == "kernel_shape")
    window.numbers[:] = [2]


def for_other_inputs(message: Message) -> None:
    node(message, "fc2").inputs[1] = "fc1.weight"


def ending_with_relu(message: Message) -> None:
    last = node(message, "fc2")
    last.kind = "Relu"
    last.ClearField("attributes")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (as_sigmoid, "its node 'relu2' is a Sigmoid"),
        (dilated, "its node 'conv2' is a Conv with {'dilations': 0}"),
        (transposed, "its node 'fc1' is a Gemm with {'transB': 0}"),
        (with_a_shortcut, "its node 'conv3' does not read what the one before it made"),
        (without_temperature, "its graph should begin with Cast, Div and end with Split"),
        (with_double_weights, "its constant 'conv1.weight' is not float32"),
        (for_fewer_channels, "its node 'conv2' does not fit values of shape (16, 12, 12)"),
        (of_one_dimension, "its node 'pool1' has the sizes {'kernel_shape': (2,), 'strides': (2, 2)}"),
        (for_other_inputs, "its node 'fc2' does not fit values of shape (128,)"),
        (ending_with_relu, "its last layer before the softmax should be a linear one"),
        (without_layers, "does not read what the one before it made"),
    ],
)
def test_what_is_no_plain_sequence_is_refused(change: Callable[[Message], None], reason: str) -> None:
    message = Message.FromString(MODEL)
    change(message)
    with pytest.raises(NotImplementedYet) as error:
        take_apart(message.SerializeToString())
    assert reason in str(error.value) and "as `python -m model_export export` writes it" in str(error.value)


def test_what_is_no_onnx_file_is_refused() -> None:
    with pytest.raises(NotImplementedYet, match="it is no ONNX file"):
        take_apart(MODEL[:1000])
