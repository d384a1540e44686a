"""--model-name: what KServe calls the model."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import grpc
import pytest

from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.errors import InvalidSetting
from service.settings import Settings
from tests.pictures import Pixels, encode
from tests.server_process import ServerProcess
from tests.test_inference import files, pixels, refused


def test_the_models_go_by_the_name_everywhere(digits: tuple[Pixels, Pixels]) -> None:
    names = ["my-digits.v2", "my-digits.v2_image", "my-digits.v2_explain"]
    with (
        ServerProcess("--model-name", names[0], "--triton-metrics", "on") as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        stub: Any = GRPCInferenceServiceStub(channel)
        picture = files(encode(digits[0][0]))
        for name, request in zip(names, (pixels(digits[0][:1]), picture, picture), strict=True):
            request.model_name = "digits"
            code, text = refused(stub.ModelInfer, request)
            assert code == "NOT_FOUND" and f"this server has {', '.join(names)}" in text
            request.model_name = name
            assert stub.ModelInfer(request).model_name == name
            assert stub.ModelReady(pb.ModelReadyRequest(name=name)).ready
            assert stub.ModelMetadata(pb.ModelMetadataRequest(name=name)).name == name
            config = stub.ModelConfig(pb.ModelConfigRequest(name=name)).config
            assert (config.name, config.instance_group[0].name) == (name, f"{name}_0")
            (statistics,) = stub.ModelStatistics(pb.ModelStatisticsRequest(name=name)).model_stats
            assert statistics.name == name and statistics.inference_stats.success.count > 0
            assert server.metric("nv_inference_count", model=name) > 0
            assert json.loads(server.get(f"{server.http_url}/v2/models/{name}/ready"))["ready"]
        index = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
        assert [each.name for each in index] == names
        assert [each.name for each in stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats] == names
        with urllib.request.urlopen(f"{server.http_url}/openapi.json", timeout=10) as response:
            assert json.load(response)["components"]["parameters"]["model"]["schema"]["enum"] == names


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "a" * 64])
def test_a_name_that_cannot_stand_in_an_address(name: str) -> None:
    with pytest.raises(InvalidSetting, match=r"--model-name \(DIGITSERVE_MODEL_NAME\): must be 1 to 63 letters"):
        Settings(model_name=name)
