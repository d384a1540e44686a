"""How an image became an answer, as the client gives it: digits.v1's message with arrays in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protos import digits_pb2
from service.client.client_messages import ImageLike, Prediction, prediction, request

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Step:
    """A step from the picture to what the network saw.

    Attributes:
        name: Such as "picture", "ink" or "seen".
        caption: A sentence for people.
        png: The picture after it, a PNG file.
    """

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer of the network at work on one image.

    Attributes:
        name: In the model file.
        kind: "conv", "relu", "max_pool", "flatten", "linear" or "softmax".
        output: What came out of it, float32 (channels, rows, columns) or (units,).
        weights: Kernels (output channels, input channels, rows, columns) or weights (units, inputs), if it has any.
        biases: One for each output channel or unit, if it has any.
        kernel: Rows and columns of the window of a conv or max_pool; empty for the others.
        stride: How far it moves down and across; empty for the others.
        padding: Rows and columns added at the top, left, bottom, right; empty for the others.
    """

    name: str
    kind: str
    output: Floats
    weights: Floats | None
    biases: Floats | None
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """How an image became an answer.

    Attributes:
        seen: What the network saw, uint8 (28, 28), 0 paper to 255 ink.
        steps: How the image became that.
        layers: In the order of the flow; the first reads `seen` / 255, the last gives the probabilities.
        logits: What the last linear layer says of the digits 0 to 9, and last of "no digit".
        temperature: What the ten are divided by before the softmax.
        prediction: The answer.
        patch: Pixels a side of the square that is covered to see what the answer hangs on.
        stride: By how many pixels it moves.
        falls: float32 (rows, columns): how far the probability of the answer falls when the square is covered whose top
            left pixel is (row * stride, column * stride).
        model_version: Who gave the answer.
    """

    seen: npt.NDArray[np.uint8]
    steps: tuple[Step, ...]
    layers: tuple[Layer, ...]
    logits: tuple[float, ...]
    temperature: float
    prediction: Prediction
    patch: int
    stride: int
    falls: Floats
    model_version: str


def explain_request(image: ImageLike) -> digits_pb2.ExplainRequest:
    """The message for one image."""
    asked = request(image)
    return digits_pb2.ExplainRequest(format=asked.format, image=asked.image)


def explanation(message: digits_pb2.ExplainResponse) -> Explanation:
    """What a message tells."""
    return Explanation(
        seen=np.frombuffer(message.seen, np.uint8).reshape(28, 28),
        steps=tuple(Step(step.name, step.caption, step.png) for step in message.steps),
        layers=tuple(map(_layer, message.layers)),
        logits=tuple(message.logits),
        temperature=message.temperature,
        prediction=prediction(message.prediction),
        patch=message.occlusion.patch,
        stride=message.occlusion.stride,
        falls=_array(message.occlusion.values),
        model_version=message.model_version,
    )


def _layer(message: digits_pb2.Layer) -> Layer:
    return Layer(
        name=message.name,
        kind=message.kind,
        output=_array(message.output),
        weights=_array(message.weights) if message.HasField("weights") else None,
        biases=_array(message.biases) if message.HasField("biases") else None,
        kernel=tuple(message.kernel),
        stride=tuple(message.stride),
        padding=tuple(message.padding),
    )


def _array(tensor: digits_pb2.Tensor) -> Floats:
    return np.array(tensor.values, np.float32).reshape(tuple(tensor.shape))
