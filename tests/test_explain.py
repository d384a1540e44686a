"""An explanation is true: every layer follows from the one before it, and the last one is the answer that is served."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.client import AsyncClient, Client
from service.pictures.steps import CAPTIONS
from tests.conftest import REPOSITORY
from tests.photographs import Scene, photograph
from tests.pictures import Pixels, encode, on_paper
from tests.server_process import ServerProcess

RAW = pb.IMAGE_FORMAT_RAW_28X28
Array = npt.NDArray[np.float64]
Digits = tuple[Pixels, Pixels]


def array(tensor: pb.Tensor) -> Array:
    return np.array(tensor.values, np.float64).reshape(tuple(tensor.shape))


def windows(values: Array, layer: pb.Layer, fill: float) -> Array:
    """Where the window of a layer comes to lie: (channels, rows, columns, rows of it, columns of it)."""
    top, left, bottom, right = layer.padding
    padded = np.pad(values, [(0, 0), (top, bottom), (left, right)], constant_values=fill)
    seen = np.lib.stride_tricks.sliding_window_view(padded, tuple(layer.kernel), axis=(1, 2))
    return seen[:, :: layer.stride[0], :: layer.stride[1]]


def recomputed(layer: pb.Layer, values: Array, temperature: float) -> Array:
    """What a layer makes of values, by numpy and its definition."""
    if layer.kind == "conv":
        products = np.einsum("cyxij,ocij->oyx", windows(values, layer, 0), array(layer.weights))
        return np.asarray(products + array(layer.biases)[:, None, None])
    if layer.kind == "relu":
        return np.maximum(values, 0)
    if layer.kind == "max_pool":
        return np.asarray(windows(values, layer, -np.inf).max((3, 4)))
    if layer.kind == "flatten":
        return values.ravel()
    if layer.kind == "linear":
        return array(layer.weights) @ values + array(layer.biases)
    assert layer.kind == "softmax"
    exponentials = np.exp(values[:10] / temperature)
    return np.asarray(exponentials / exponentials.sum())


def ask(server: ServerProcess, body: bytes, query: str = "") -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{server.http_url}/v1/explain{query}", data=body)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_every_layer_follows_from_the_one_before_it(stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits) -> None:
    for image in digits[0][:5]:
        answer = stub.Explain(pb.ExplainRequest(format=RAW, image=image.tobytes()))
        assert answer.seen == image.tobytes()
        values = image[None] / 255
        for layer in answer.layers:
            found = array(layer.output)
            np.testing.assert_allclose(found, recomputed(layer, values, answer.temperature), rtol=1e-4, atol=1e-4)
            values = found
        assert [layer.kind for layer in answer.layers][-2:] == ["linear", "softmax"]
        assert answer.logits == pytest.approx(list(answer.layers[-2].output.values))


def test_the_last_layer_is_the_answer_that_is_served(stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits) -> None:
    for image in digits[0][:20]:
        answer = stub.Explain(pb.ExplainRequest(format=RAW, image=image.tobytes(), without_weights=True))
        served = stub.Classify(pb.ClassifyRequest(format=RAW, image=image.tobytes()))
        assert answer.prediction == served.prediction and answer.model_version == served.model_version
        assert list(answer.layers[-1].output.values) == pytest.approx(served.prediction.probabilities, abs=1e-6)
        energy = np.log(np.exp(np.array(answer.logits[:10], np.float64)).sum())
        assert energy - answer.logits[10] == pytest.approx(served.prediction.digit_score, abs=1e-4)


def test_occlusion_is_what_the_server_says_of_a_covered_image(
    stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits
) -> None:
    image = digits[0][3]
    answer = stub.Explain(pb.ExplainRequest(format=RAW, image=image.tobytes(), without_weights=True))
    patch, stride, falls = answer.occlusion.patch, answer.occlusion.stride, array(answer.occlusion.values)
    assert falls.shape == (1 + (28 - patch) // stride,) * 2 and falls.max() > 0.01
    digit = answer.prediction.digit
    for row, column in [*np.argwhere(falls >= np.sort(falls, axis=None)[-3]).tolist(), [0, 0], [5, 5]]:
        covered = image.copy()
        covered[row * stride :, column * stride :][:patch, :patch] = 0
        served = stub.Classify(pb.ClassifyRequest(format=RAW, image=covered.tobytes())).prediction
        assert falls[row, column] == pytest.approx(answer.prediction.confidence - served.probabilities[digit], abs=1e-6)


def test_blank_paper_is_explained_too(stub: digits_pb2_grpc.DigitClassifierStub) -> None:
    answer = stub.Explain(pb.ExplainRequest(image=encode(np.full((100, 100), 200, np.uint8))))
    assert answer.prediction.rejection_reason == "blank" and not any(answer.seen)
    assert not any(answer.occlusion.values.values)
    assert answer.steps[-1].name == "seen"


def test_the_steps_lead_from_the_picture_to_what_was_seen(
    stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits
) -> None:
    photo = photograph(digits[0][0], Scene(rules=25, ink=(40, 60, 170)))
    pictures = {
        "photo": encode(photo),
        "drawing": encode(on_paper(digits[0][0])),
        "already as MNIST's": encode(digits[0][0]),
    }
    names = {}
    for kind, picture in pictures.items():
        answer = stub.Explain(pb.ExplainRequest(image=picture))
        names[kind] = [step.name for step in answer.steps]
        for step in answer.steps:
            with Image.open(io.BytesIO(step.png)) as image:
                assert max(image.size) <= 256 and image.format == "PNG"
                pixels = np.asarray(image)
            assert step.caption == CAPTIONS[step.name]
        assert pixels.tobytes() == answer.seen
    assert names["photo"] == ["picture", "grey", "paper", "contrast", "unruled", "ink", "stroke", "seen"]
    assert names["drawing"][0] == "picture" and "paper" not in names["drawing"] and names["drawing"][-1] == "seen"
    assert names["already as MNIST's"] == ["picture", "seen"]


def test_explaining_over_http_tells_what_it_tells_over_grpc(
    server: ServerProcess, stub: digits_pb2_grpc.DigitClassifierStub
) -> None:
    picture = (REPOSITORY / "service" / "examples" / "seven.png").read_bytes()
    status, answer = ask(server, picture)
    assert status == 200
    expected = stub.Explain(pb.ExplainRequest(image=picture))

    def values(found: dict[str, Any]) -> list[float]:
        numbers = np.frombuffer(base64.b64decode(found["values"]), "<f4")
        assert numbers.size == np.prod(found["shape"])
        return [*map(float, numbers)]

    assert b"".join(map(bytes, answer["seen"])) == expected.seen
    assert [base64.b64decode(step["png"]) for step in answer["steps"]] == [step.png for step in expected.steps]
    assert answer["prediction"]["digit"] == 7 == expected.prediction.digit
    assert answer["logits"] == pytest.approx(list(expected.logits), rel=1e-6)
    for found, layer in zip(answer["layers"], expected.layers, strict=True):
        assert (found["name"], found["kind"]) == (layer.name, layer.kind)
        assert values(found["output"]) == list(layer.output.values)
        assert ("weights" in found, "biases" in found) == (layer.HasField("weights"), layer.HasField("biases"))
        if "weights" in found:
            assert found["weights"]["shape"] == list(layer.weights.shape)
            assert values(found["weights"]) == list(layer.weights.values)
        assert found.get("kernel", []) == list(layer.kernel)
    assert values(answer["occlusion"]["values"]) == list(expected.occlusion.values.values)


def test_weights_are_left_out_on_request(server: ServerProcess, stub: digits_pb2_grpc.DigitClassifierStub) -> None:
    picture = (REPOSITORY / "service" / "examples" / "two.png").read_bytes()
    _, answer = ask(server, picture, "?weights=off")
    assert answer["prediction"]["digit"] == 2
    assert not any({"weights", "biases"} & layer.keys() for layer in answer["layers"])
    response = stub.Explain(pb.ExplainRequest(image=picture, without_weights=True))
    assert not any(layer.HasField("weights") or layer.HasField("biases") for layer in response.layers)


@pytest.mark.parametrize(
    ("body", "query", "text"),
    [(b"hello", "", "no image the server can read"), (b"x", "?weights=none", "weights is 'none'; expected on or off")],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(
    server: ServerProcess, body: bytes, query: str, text: str
) -> None:
    status, answer = ask(server, body, query)
    assert (status, answer["code"]) == (400, "INVALID_ARGUMENT") and text in answer["error"]


def test_raw_pixels_of_another_number_are_refused(stub: digits_pb2_grpc.DigitClassifierStub) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub.Explain(pb.ExplainRequest(format=RAW, image=bytes(783)), timeout=10)
    assert error.value.code().name == "INVALID_ARGUMENT" and "this one has 783" in (error.value.details() or "")


async def test_the_client_gives_arrays(server: ServerProcess, client: Client, digits: Digits) -> None:
    image = digits[0][0]
    async with AsyncClient(server.grpc_address) as other:
        for found in (client.explain(image), await other.explain(image)):
            np.testing.assert_array_equal(found.seen, image)
            assert found.prediction == client.classify(image)
            conv, *_, linear, softmax = found.layers
            assert conv.weights is not None and conv.biases is not None and softmax.weights is None
            assert conv.output.shape == (len(conv.weights), 24, 24) and conv.kernel == (5, 5)
            np.testing.assert_allclose(
                conv.output[:, 3, 7],
                np.tensordot(conv.weights, image[3:8, 7:12][None] / 255, 3) + conv.biases,
                atol=1e-5,
            )
            np.testing.assert_allclose(found.logits, linear.output)
            np.testing.assert_allclose(softmax.output, found.prediction.probabilities, atol=1e-6)
            assert found.falls.ndim == 2 and found.steps[-1].name == "seen" and found.model_version == "1"
