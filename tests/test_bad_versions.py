"""Model files that cannot be used: what else there is goes on answering."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from pathlib import Path

import grpc
import pytest

from model_export.publish import manifest
from protos import grpc_service_pb2 as pb
from service import server as server_module
from service.errors import ModelUnusable
from tests.answering import answering, golden, not_text, of_tomorrow, overflowing, put
from tests.asking import serving


@pytest.mark.parametrize("bad", [b"no model", overflowing()])
async def test_a_start_with_a_bad_version_serves_the_one_before_and_says_so(tmp_path: Path, bad: bytes) -> None:
    put(tmp_path, 1, answering(1))
    put(tmp_path, 2, bad)
    async with serving(tmp_path) as ask:
        assert await ask.infer() == ("1", 1)
        assert await ask.states() == [("1", "READY"), ("2", "UNAVAILABLE")]
        assert await asyncio.to_thread(ask.shows, 'digitserve_model_loads_total{outcome="refused"} 1.0')


async def test_a_start_fails_only_if_no_version_can_be_used(tmp_path: Path) -> None:
    for version in (1, 2):
        put(tmp_path, version, b"no model")
    with pytest.raises(ModelUnusable, match=r"digits/2/model.onnx: ONNX Runtime cannot load the model"):
        async with serving(tmp_path):
            pass


@pytest.mark.parametrize(
    ("bad", "reason", "details"),
    [
        (b"no model", "ONNX Runtime cannot load the model", ": [ONNXRuntimeError]"),
        (answering(2)[:1000], "ONNX Runtime cannot load the model", ": [ONNXRuntimeError]"),
        (b"", "ONNX Runtime cannot load the model", ": "),
        (of_tomorrow(), "ONNX Runtime cannot load the model", "/onnxruntime"),
        (not_text(), "the model's names or metadata are no text in UTF-8", ""),
    ],
)
async def test_a_bad_version_changes_nothing_but_a_metric_and_its_state(
    tmp_path: Path, bad: bytes, reason: str, details: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers learn why in our words; what ONNX Runtime says, which may name its source, is for the log."""
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        put(tmp_path, 2, bad)
        code, text = await ask.failed_load()
        assert code == "INVALID_ARGUMENT"
        assert text == f"not loaded: version 2: {reason}; what was loaded before goes on answering"
        logged = next(record.getMessage() for record in caplog.records if "cannot be used" in record.message)
        assert reason in logged and details in logged
        assert await ask.infer() == ("1", 1)
        index = (await ask.stub.RepositoryIndex(pb.RepositoryIndexRequest())).models
        assert [(each.version, each.state) for each in index[:2]] == [("1", "READY"), ("2", "UNAVAILABLE")]
        assert index[1].reason == reason
        ready = (await ask.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))).models
        assert {each.version for each in ready} == {"1"}
        assert await asyncio.to_thread(ask.shows, 'digitserve_model_loads_total{outcome="refused"} 1.0')
        # The same version, put right.
        put(tmp_path, 2, answering(2))
        await ask.load()
        assert await ask.infer() == ("2", 2)


async def test_a_file_that_ends_the_process_ends_another_one(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        put(tmp_path, 2, overflowing())
        assert "the process that tried it was ended by SIGSEGV" in (await ask.failed_load())[1]
        assert await ask.infer() == ("1", 1)


async def test_e3_a_bad_file_in_the_place_of_the_loaded_one_changes_nothing(tmp_path: Path) -> None:
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


async def test_a_failed_load_is_tried_again_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1, answering(1))
    async with serving(tmp_path) as ask:
        put(tmp_path, 2, answering(2))
        with monkeypatch.context() as patch:
            patch.setattr(server_module, "open_model", lambda *_, **__: 1 / 0)
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


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A file cut short, with bytes that changed, or with others in it."""
    place = chance.randrange(len(data))
    some = chance.randbytes(chance.randrange(1, 100))
    kind = chance.choice(("cut", "changed", "grown", "garbage"))
    if kind == "cut":
        return data[:place]
    if kind == "garbage":
        return chance.randbytes(len(data))
    rest = data[place + len(some) :] if kind == "changed" else data[place:]
    return data[:place] + some + rest


async def test_200_damaged_files_change_nothing_under_load(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    chance = random.Random(1)
    async with serving(tmp_path) as ask, asyncio.TaskGroup() as callers:
        done = False

        async def keep_asking() -> None:
            while not done:
                assert await ask.infer() == ("1", 1)

        asking = [callers.create_task(keep_asking()) for _ in range(4)]
        for _ in range(200):
            put(tmp_path, 2, answering(2))
            (tmp_path / "digits/2/model.onnx").write_bytes(damaged(answering(2), chance))
            code, text = await ask.failed_load()
            assert code == "INVALID_ARGUMENT" and "the file is not the published one" in text
        done = True
        await asyncio.gather(*asking)
        assert await ask.states() == [("1", "READY"), ("2", "UNAVAILABLE")]
        assert await asyncio.to_thread(ask.shows, 'digitserve_model_loads_total{outcome="refused"} 200.0')


@pytest.mark.slow
async def test_a_damaged_file_whose_manifest_is_as_damaged_answers_rightly_or_not_at_all(tmp_path: Path) -> None:
    """The golden samples tell of a file that was published damaged; the server survives what ONNX Runtime does not."""
    put(tmp_path, 1, answering(1))
    chance = random.Random(2)
    answered: set[str] = set()
    async with serving(tmp_path) as ask:
        for _ in range(30):
            data = damaged(answering(1), chance)
            put(tmp_path, 2, data)
            (tmp_path / "digits/2/manifest.json").write_bytes(manifest(data, golden(answering(1))))
            with contextlib.suppress(grpc.aio.AioRpcError):
                await ask.load()
            version, digit = await ask.infer()
            assert digit == 1
            answered.add(version)
    assert answered == {"1", "2"}
