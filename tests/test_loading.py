"""Versions that come and go while the server serves."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from protos import grpc_service_pb2 as pb
from service.errors import ModelUnusable
from service.pictures.decoding import Decoder
from tests.answering import answering, put
from tests.asking import serving
from tests.conftest import REPOSITORY
from tests.server_process import wait_until


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


async def test_e6_a_caller_who_leaves_does_not_break_off_a_load(tmp_path: Path) -> None:
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


async def test_e6_a_hundred_loads_at_once_load_once(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        put(tmp_path, 2, answering(2))
        await asyncio.gather(*(ask.load() for _ in range(100)))
        assert await ask.infer() == ("2", 2)
        assert await asyncio.to_thread(ask.shows, 'digitserve_model_loads_total{outcome="loaded"} 2.0')


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
        for name in ("digits", "digits_image", "digits_explain"):
            for version in ("", "1"):
                request = pb.ModelStatisticsRequest(name=name, version=version)
                assert (await ask.code(ask.stub.ModelStatistics(request)))[0] == "UNAVAILABLE"
        assert not (await ask.stub.ModelStatistics(pb.ModelStatisticsRequest())).model_stats
        await ask.load()
        assert await ask.infer() == ("1", 1)
        assert await ask.healthy("digits.v1.DigitClassifier", "inference.GRPCInferenceService") == [True, True]


@pytest.mark.parametrize("name", ["digits_image", "digits_explain"])
async def test_a_version_that_goes_while_files_are_read_leaves_them_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    released = REPOSITORY / "models" / "digits" / "1"
    shutil.copytree(released, tmp_path / "digits" / "1")
    begun, go_on = asyncio.Event(), asyncio.Event()
    read = Decoder.read

    async def slowly(*arguments: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await read(*arguments)

    monkeypatch.setattr(Decoder, "read", slowly)
    picture = (REPOSITORY / "service" / "examples" / "seven.png").read_bytes()
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(picture)
    async with serving(tmp_path) as ask:
        asked = ask.stub.ModelInfer(pb.ModelInferRequest(model_name=name, inputs=[tensor]))
        await begun.wait()
        shutil.copytree(released, tmp_path / "digits" / "2")
        await ask.load()
        assert await ask.states() == [("2", "READY")]
        go_on.set()
        assert (await asked).model_version == "2"
        (statistics,) = (await ask.stub.ModelStatistics(pb.ModelStatisticsRequest(name=name))).model_stats
        assert (statistics.version, statistics.inference_stats.success.count) == ("2", 1)


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
