"""An explanation as a message of digits.v1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protos import digits_pb2 as pb
from service.explanation.explaining import Explanation
from service.explanation.layers import Layer


def response(explanation: Explanation, prediction: pb.Prediction, *, with_weights: bool) -> pb.ExplainResponse:
    """The answer to `Explain`.

    Args:
        explanation: What to tell.
        prediction: Its prediction as `Classify` gives it.
        with_weights: Whether weights and biases are wanted.
    """
    occlusion = explanation.occlusion
    return pb.ExplainResponse(
        seen=explanation.seen.tobytes(),
        layers=[_layer(layer, output, with_weights) for layer, output in explanation.layers],
        prediction=prediction,
        model_version=explanation.model_version,
        steps=[pb.Step(name=step.name, caption=step.caption, png=step.png) for step in explanation.steps],
        logits=explanation.logits,
        temperature=explanation.temperature,
        occlusion=pb.Occlusion(patch=occlusion.patch, stride=occlusion.stride, values=_tensor(occlusion.falls)),
    )


def _layer(layer: Layer, output: npt.NDArray[np.float32], with_weights: bool) -> pb.Layer:
    return pb.Layer(
        name=layer.name,
        kind=layer.kind,
        output=_tensor(output),
        weights=_tensor(layer.weights) if with_weights else None,
        biases=_tensor(layer.biases) if with_weights else None,
        kernel=layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
    )


def _tensor(array: npt.NDArray[np.float32] | None) -> pb.Tensor | None:
    # A list is read six times as fast as an array.
    return None if array is None else pb.Tensor(shape=array.shape, values=array.ravel().tolist())
