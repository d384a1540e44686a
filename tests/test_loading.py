"""Versions that come and go while the server serves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service import server as server_module
from service.errors import ModelUnusable
from service.server import Running, running
from service.settings import Settings
from tests.answering import answering, overflowing, put
from tests.server_process import wait_until


class Asker:
    """Asks a server over gRPC."""

    def __init__(self, server: Running, channel: grpc.aio.Channel):
        self.server = server
        self.stub = GRPCInferenceServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    async def infer(self, version: str = "", images: int = 1) -> tuple[str, int]:
        """The version that answered, and the digit it read."""
        tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[images, 1, 28, 28])
        request = pb.ModelInferRequest(
            model_name="digits", model_version=version, inputs=[tensor], raw_input_contents=[bytes(784 * images)]
        )
        response = await self.stub.ModelInfer(request)
        probabilities = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(images, 10)
        (digit,) = set(probabilities.argmax(1).tolist())
        return response.model_version, digit

    async def load(self) -> None:
        await self.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="digits"))

    async def failed_load(self) -> tuple[str, str]:
        """Code and text of a load that has to fail."""
        return await self.code(self.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="digits")))

    async def healthy(self, *services: str) -> list[bool]:
        """What health says of each service; "" is the server as a whole."""
        stub: Any = self.health
        requests = [health_pb2.HealthCheckRequest(service=service) for service in services]
        return [(await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING for request in requests]

    def shows(self, line: str) -> bool:
        """Whether /metrics has a text; blocks."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.ops_port}/metrics", timeout=10) as response:
            return line in response.read().decode()

    async def states(self) -> list[tuple[str, str]]:
        index = await self.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        return [(each.version, each.state) for each in index.models if each.name == "digits"]

    async def code(self, call: grpc.aio.UnaryUnaryCall) -> tuple[str, str]:  # type: ignore[type-arg]
        """Code and text of a call that has to fail."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        return error.value.code().name, error.value.details() or ""


@contextlib.asynccontextmanager
async def serving(models: Path, **others: object) -> AsyncIterator[Asker]:
    """A server of the models in a folder."""
    ports = {"grpc_port": 0, "http_port": 0, "ops_port": 0}
    settings = Settings(models_dir=models, **{**ports, "model_control": "explicit", **others})  # type: ignore[arg-type]
    async with (
        running(settings) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        yield Asker(server, channel)


async def test_versions_side_by_side_and_by_policy(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        put(tmp_path, version, answering(version % 10))
    async with serving(tmp_path, model_versions="latest:2") as ask:
        assert await ask.infer() == ("10", 0)
        assert await ask.infer("2") == ("2", 2)
        metadata = await ask.stub.ModelMetadata(pb.ModelMetadataRequest(name="digits"))
        assert list(metadata.versions) == ["2", "10"]
        config = (await ask.stub.ModelConfig(pb.ModelConfigRequest(name="digits"))).config
        assert config.version_policy.latest.num_versions == 2
        put(tmp_path, 11, answering(1))
        await ask.load()
        assert await ask.states() == [("10", "READY"), ("11", "READY")]
        assert (await ask.infer(), await ask.infer("10")) == (("11", 1), ("10", 0))


@pytest.mark.parametrize(("policy", "ready"), [("all", ["1", "2"]), ("1", ["1"])])
async def test_all_or_some_versions(tmp_path: Path, policy: str, ready: list[str]) -> None:
    for version in (1, 2):
        put(tmp_path, version, answering(version))
    async with serving(tmp_path, model_versions=policy) as ask:
        assert await ask.states() == [(version, "READY") for version in ready]


async def test_a_policy_that_fits_nothing_stops_the_start(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    with pytest.raises(ModelUnusable, match="--model-versions 3,4 fits none of the versions found: 1"):
        async with serving(tmp_path, model_versions="3,4"):
            pass


@pytest.mark.parametrize("bad", [b"no model", answering(2)[:1000], b""])
async def test_a_bad_version_changes_nothing_but_a_metric_and_its_state(tmp_path: Path, bad: bytes) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        put(tmp_path, 2, bad)
        code, text = await ask.failed_load()
        assert code == "INVALID_ARGUMENT"
        assert "version 2: ONNX Runtime cannot load the model" in text and str(tmp_path) not in text
        assert await ask.infer() == ("1", 1)
        index = (await ask.stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
        assert [(each.version, each.state) for each in index[:2]] == [("1", "READY"), ("2", "UNAVAILABLE")]
        assert "cannot load the model" in index[1].reason
        ready = (await ask.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))).models
        assert {each.version for each in ready} == {"1"}
        assert await asyncio.to_thread(ask.shows, 'digitserve_model_loads_total{outcome="refused"} 1.0')
        # The same version, put right.
        put(tmp_path, 2, answering(2))
        await ask.load()
        assert await ask.infer() == ("2", 2)


async def test_a_caller_who_leaves_does_not_break_off_a_load(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        put(tmp_path, 2, answering(2))
        asked = ask.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="digits"))
        while ("2", "LOADING") not in await ask.states():
            pass
        asked.cancel()
        await ask.load()
        assert await ask.infer() == ("2", 2)
        assert await asyncio.to_thread(ask.shows, 'digitserve_model_loads_total{outcome="loaded"} 2.0')


async def test_a_file_that_ends_the_process_ends_another_one(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        put(tmp_path, 2, overflowing())
        assert "the process that tried it was ended by SIGSEGV" in (await ask.failed_load())[1]
        assert await ask.infer() == ("1", 1)


async def test_a_bad_file_in_the_place_of_the_loaded_one_changes_nothing(tmp_path: Path) -> None:
    for version in (1, 2):
        put(tmp_path, version, answering(version))
    async with serving(tmp_path) as ask:
        put(tmp_path, 2, b"no model")
        await ask.failed_load()
        assert await ask.infer() == ("2", 2)
        assert await ask.states() == [("2", "READY")]
        put(tmp_path, 2, answering(7))
        await ask.load()
        assert await ask.infer() == ("2", 7)
        shutil.rmtree(tmp_path / "digits")
        assert (await ask.failed_load())[0] == "INVALID_ARGUMENT"
        assert await ask.infer() == ("2", 7)


async def test_unload_and_load(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        await ask.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(repository_name="digits"))
        await ask.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="digits"))
        assert await ask.states() == [("1", "UNAVAILABLE")]
        assert not (await ask.stub.ModelReady(pb.ModelReadyRequest(name="digits"))).ready
        assert await ask.healthy("digits.v1.DigitClassifier", "inference.GRPCInferenceService") == [False, False]
        # The server itself is well.
        assert (await ask.stub.ServerReady(pb.ServerReadyRequest())).ready
        assert await ask.healthy("") == [True]
        request = pb.ModelStatisticsRequest(name="digits", version="1")
        assert (await ask.code(ask.stub.ModelStatistics(request)))[0] == "UNAVAILABLE"
        await ask.load()
        assert await ask.infer() == ("1", 1)
        assert await ask.healthy("digits.v1.DigitClassifier", "inference.GRPCInferenceService") == [True, True]


async def test_what_cannot_be_loaded_by_a_call(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        for name, parameters, expected, text in (
            ("digits_image", {}, "INVALID_ARGUMENT", "load or unload that"),
            ("../x", {}, "NOT_FOUND", "unknown model"),
            ("digits", {"config": pb.ModelRepositoryParameter()}, "INVALID_ARGUMENT", "parameters"),
        ):
            request = pb.RepositoryModelLoadRequest(model_name=name, parameters=parameters)
            code, found = await ask.code(ask.stub.RepositoryModelLoad(request))
            assert code == expected and text in found


async def test_load_and_unload_over_http(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        address = f"http://127.0.0.1:{ask.server.http_port}/v2"

        def call(path: str, body: bytes | None = b"") -> tuple[int, object]:
            try:
                with urllib.request.urlopen(urllib.request.Request(address + path, body), timeout=10) as response:
                    return response.status, json.load(response)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        assert await asyncio.to_thread(call, "/repository/models/digits/unload") == (200, {})
        assert await asyncio.to_thread(call, "/health/ready", None) == (200, {"ready": True})
        assert (await asyncio.to_thread(call, "/models/digits/ready", None))[0] == 503
        assert await asyncio.to_thread(call, "/repository/models/digits/load", b"{}") == (200, {})
        assert await asyncio.to_thread(call, "/health/ready", None) == (200, {"ready": True})
        given = json.dumps({"parameters": {"config": "{}"}}).encode()
        assert (await asyncio.to_thread(call, "/repository/models/digits/load", given))[0] == 400


async def test_the_folder_is_watched(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path, model_control="poll", model_poll_s=0.05) as ask:
        put(tmp_path, 2, b"no model")
        put(tmp_path, 3, answering(3))
        await asyncio.to_thread(wait_until, lambda: ask.shows('version="3"'))
        assert await ask.infer() == ("3", 3)


@pytest.mark.slow
async def test_50_versions_come_and_go_under_load(tmp_path: Path) -> None:
    """No call fails, and every answer is of the version it says, also those asked for by number."""
    put(tmp_path, 1, answering(1))
    answers: dict[str, int] = {}
    async with serving(tmp_path) as ask:
        done = False

        async def keep_asking(images: int) -> None:
            while not done:
                version, digit = await ask.infer(images=images)
                assert digit == int(version) % 10
                answers[version] = answers.get(version, 0) + 1

        callers = [asyncio.create_task(keep_asking(images)) for images in (1, 1, 3, 100)]
        for version in itertools.count(2):
            put(tmp_path, version, answering(version % 10))
            shutil.rmtree(tmp_path / "digits" / str(version - 1))
            await asyncio.gather(*(ask.load() for _ in range(3)))
            assert await ask.infer() == (str(version), version % 10)
            if version == 51:
                break
        done = True
        await asyncio.gather(*callers)
    assert len(answers) >= 50


async def test_a_failed_load_is_tried_again_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        put(tmp_path, 2, answering(2))
        with monkeypatch.context() as patch:
            patch.setattr(server_module, "_load_model", lambda *_, **__: 1 / 0)
            code, text = await ask.failed_load()
            assert code == "INVALID_ARGUMENT" and "its log knows more" in text and "ZeroDivision" not in text
            assert await ask.states() == [("1", "READY"), ("2", "UNAVAILABLE")]
        await ask.load()
        assert await ask.infer() == ("2", 2)


async def test_a_folder_that_is_gone_is_told_without_its_path(tmp_path: Path) -> None:
    models = tmp_path / "models"
    put(models, 1, answering(1))
    async with serving(models) as ask:
        models.rename(tmp_path / "elsewhere")
        code, text = await ask.failed_load()
        assert code == "INVALID_ARGUMENT" and "no model was found" in text and str(tmp_path) not in text
        assert await ask.infer() == ("1", 1)
