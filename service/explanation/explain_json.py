"""An explanation as `POST /v1/explain` gives it; `openapi.json` says what is in it."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from service.explanation.explaining import Explanation
from service.explanation.layers import Layer


def write(explanation: Explanation, prediction: dict[str, Any], *, with_weights: bool) -> bytes:
    """The body of the answer.

    Args:
        explanation: What to tell.
        prediction: Its prediction as `POST /v1/classify` gives it.
        with_weights: Whether weights and biases are wanted.
    """
    occlusion = explanation.occlusion
    content = {
        "seen": explanation.seen.tolist(),
        "steps": [{"name": step.name, "caption": step.caption, "png": _base64(step.png)} for step in explanation.steps],
        "layers": [_layer(layer, output, with_weights) for layer, output in explanation.layers],
        "logits": explanation.logits,
        "temperature": explanation.temperature,
        "prediction": prediction,
        "occlusion": {"patch": occlusion.patch, "stride": occlusion.stride, "values": _values(occlusion.falls)},
        "model_version": explanation.model_version,
    }
    return json.dumps(content).encode()


def _layer(layer: Layer, output: npt.NDArray[np.float32], with_weights: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"name": layer.name, "kind": layer.kind, "output": _values(output)}
    if with_weights and layer.weights is not None:
        content["weights"] = _values(layer.weights)
    if with_weights and layer.biases is not None:
        content["biases"] = _values(layer.biases)
    if layer.kernel:
        content |= {"kernel": layer.kernel, "stride": layer.stride, "padding": layer.padding}
    return content


def _values(array: npt.NDArray[np.float32]) -> dict[str, Any]:
    return {"shape": array.shape, "values": _base64(array.astype("<f4").tobytes())}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
