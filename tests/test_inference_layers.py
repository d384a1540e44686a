"""`digits_explain`: what comes out of every layer, over the Open Inference Protocol."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from protos import digits_pb2, digits_pb2_grpc
from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.open_inference.inference import MAX_EXPLAINED_IMAGES
from service.open_inference.tensors import join_bytes
from tests.answering import answering, put
from tests.conftest import REPOSITORY
from tests.pictures import Pixels, encode
from tests.server_process import ServerProcess

Digits = tuple[Pixels, Pixels]
Output = pb.ModelInferRequest.InferRequestedOutputTensor
NAME = "digits_explain"


@pytest.fixture(scope="module")
def oip(server: ServerProcess) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield GRPCInferenceServiceStub(channel)


def files(images: Pixels, *outputs: str) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[len(images)])
    return pb.ModelInferRequest(
        model_name=NAME,
        inputs=[tensor],
        outputs=[Output(name=name) for name in outputs],
        raw_input_contents=[join_bytes([encode(image) for image in images])],
    )


def outputs(response: pb.ModelInferResponse) -> dict[str, npt.NDArray[Any]]:
    dtypes = {"FP32": np.float32, "UINT8": np.uint8}
    return {
        tensor.name: np.frombuffer(raw, dtypes[tensor.datatype]).reshape(tuple(tensor.shape))
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def test_every_layer_is_what_explain_says(
    oip: GRPCInferenceServiceStub, stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits
) -> None:
    images = digits[0][:3]
    found = outputs(oip.ModelInfer(files(images)))
    for index, image in enumerate(images):
        explained = stub.Explain(digits_pb2.ExplainRequest(image=encode(image), without_weights=True))
        for layer in explained.layers:
            name = "probabilities" if layer.kind == "softmax" else layer.name
            expected = np.array(layer.output.values, np.float32).reshape(tuple(layer.output.shape))
            np.testing.assert_allclose(found[name][index], expected, atol=1e-5)
        assert found["digit_score"][index] == pytest.approx(explained.prediction.digit_score, abs=1e-4)
    # All but `seen`, and the softmax under its other name.
    assert len(found) == len(explained.layers) + 1


def test_the_metadata_and_the_configuration_tell_what_is_given(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    metadata = oip.ModelMetadata(pb.ModelMetadataRequest(name=NAME))
    config = oip.ModelConfig(pb.ModelConfigRequest(name=NAME)).config
    names = [tensor.name for tensor in metadata.outputs]
    found = outputs(oip.ModelInfer(files(digits[0][:2], *names)))
    for told, configured in zip(metadata.outputs, config.output, strict=True):
        assert told.name == configured.name
        assert list(told.shape) == list(configured.dims) == [-1, *found[told.name].shape[1:]]
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [("image", "BYTES", [-1])]
    assert config.max_batch_size == 0 and list(metadata.versions) == ["1"]
    np.testing.assert_array_equal(found["seen"], digits[0][:2])


def test_only_the_layers_that_are_wanted_come(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    found = outputs(oip.ModelInfer(files(digits[0][:1], "pool2", "probabilities")))
    assert {name: value.shape for name, value in found.items()} == {"pool2": (1, 64, 4, 4), "probabilities": (1, 10)}


def test_what_is_asked_wrongly_is_refused(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    many = np.repeat(digits[0][:1], MAX_EXPLAINED_IMAGES + 1, axis=0)
    for request, text in (
        (files(many), f"takes at most {MAX_EXPLAINED_IMAGES}"),
        (files(digits[0][:1], "conv9"), "unexpected inference output 'conv9' for model 'digits_explain'"),
        (files(digits[0][:1], "conv1", "conv1"), "requested twice"),
    ):
        with pytest.raises(grpc.RpcError) as error:
            oip.ModelInfer(request, timeout=10)
        assert error.value.code().name == "INVALID_ARGUMENT" and text in (error.value.details() or "")


def test_it_counts_under_its_own_name(oip: GRPCInferenceServiceStub, digits: Digits) -> None:
    def counts() -> list[int]:
        found = oip.ModelStatistics(pb.ModelStatisticsRequest(name=NAME)).model_stats[0]
        return [found.inference_count, found.execution_count, found.inference_stats.success.count]

    before = counts()
    oip.ModelInfer(files(digits[0][:4], "relu1"))
    assert counts() == [before[0] + 4, before[1] + 1, before[2] + 1]


def test_it_is_had_over_rest(server: ServerProcess, digits: Digits) -> None:
    body = {
        "inputs": [
            {
                "name": "image",
                "datatype": "BYTES",
                "shape": [1],
                "data": [base64.b64encode(encode(digits[0][0])).decode()],
            }
        ],
        "outputs": [{"name": "fc2"}],
    }
    request = urllib.request.Request(f"{server.http_url}/v2/models/{NAME}/infer", data=json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        (tensor,) = json.load(response)["outputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("fc2", "FP32", [1, 11])
    assert len(tensor["data"]) == 11


def test_a_network_of_another_kind_is_listed_with_the_reason(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(3))
    with ServerProcess("--models-dir", str(tmp_path)) as server, grpc.insecure_channel(server.grpc_address) as channel:
        oip = GRPCInferenceServiceStub(channel)
        index = {each.name: each for each in oip.RepositoryIndex(pb.RepositoryIndexRequest()).models}
        assert index["digits"].state == "READY" and index[NAME].state == "UNAVAILABLE"
        assert "this model cannot be explained" in index[NAME].reason
        assert not oip.ModelReady(pb.ModelReadyRequest(name=NAME)).ready
        stats = oip.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
        assert [each.name for each in stats] == ["digits", "digits_image"]
        with pytest.raises(grpc.RpcError) as error:
            oip.ModelMetadata(pb.ModelMetadataRequest(name=NAME))
        assert error.value.code().name == "UNIMPLEMENTED"


def test_of_several_versions_those_are_named_that_can_be_explained(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(3))
    shutil.copytree(REPOSITORY / "models" / "digits" / "1", tmp_path / "digits" / "2")
    flags = ("--models-dir", str(tmp_path), "--model-versions", "all")
    with ServerProcess(*flags) as server, grpc.insecure_channel(server.grpc_address) as channel:
        oip = GRPCInferenceServiceStub(channel)
        for name, versions in (("digits", ["1", "2"]), (NAME, ["2"])):
            assert list(oip.ModelMetadata(pb.ModelMetadataRequest(name=name)).versions) == versions
            stats = oip.ModelStatistics(pb.ModelStatisticsRequest(name=name)).model_stats
            assert [each.version for each in stats] == versions
