"""What several workers say about their models, as one answer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from protos import grpc_service_pb2 as pb
from service.model.loading import State
from service.processes.supervised import Supervised, added, common_states
from service.server import running
from service.settings import Settings
from tests.answering import answering, put
from tests.test_line import lines


def test_a_version_is_as_far_as_the_slowest_worker_is() -> None:
    ready, loading = State("1", "READY", ""), State("2", "LOADING", "")
    bad = State("3", "UNAVAILABLE", "no model")
    assert common_states([[ready], [ready]]) == [ready]
    assert common_states([[ready, State("2", "READY", "")], [ready]]) == [ready, loading]
    assert common_states([[ready, loading], [ready, State("2", "READY", "")]]) == [ready, loading]
    assert common_states([[State("3", "READY", "")], [bad]]) == [bad]
    assert [each.version for each in common_states([[State("10", "READY", "")], [State("9", "READY", "")]])] == [
        "9",
        "10",
    ]


def did(version: str, count: int, last: int, batch_size: int) -> pb.ModelStatistics:
    """A worker's statistics."""
    duration = pb.StatisticDuration(count=count, ns=10 * count)
    return pb.ModelStatistics(
        name="digits",
        version=version,
        last_inference=last,
        inference_count=count,
        execution_count=count,
        inference_stats=pb.InferStatistics(success=duration, queue=duration),
        batch_stats=[pb.InferBatchStatistics(batch_size=batch_size, compute_infer=duration)],
    )


def test_statistics_are_added_by_version_and_batch_size() -> None:
    total, other = added([did("2", 3, 100, 8), did("10", 1, 50, 1), did("2", 4, 90, 4), did("2", 5, 80, 8)])
    assert (total.version, other.version) == ("2", "10")
    assert (total.inference_count, total.execution_count, total.last_inference) == (12, 12, 100)
    assert (total.inference_stats.success.count, total.inference_stats.queue.ns) == (12, 120)
    assert total.inference_stats.fail.count == 0
    assert [(each.batch_size, each.compute_infer.count) for each in total.batch_stats] == [(4, 4), (8, 8)]
    assert other.inference_count == 1


async def test_a_worker_that_loads_while_the_others_change_their_models_loads_again(tmp_path: Path) -> None:
    sha256 = {}
    for version in ("1", "2"):
        model = answering(int(version))
        put(tmp_path, int(version), model)
        sha256[version] = hashlib.sha256(model).hexdigest()
    said: list[Any] = []

    async def join(loaded: Any) -> Any:
        said.append(loaded)
        others = {"1": sha256["1"]} if loaded is None else {"2": sha256["2"]}
        return {"joined": loaded == others, "others": others}

    settings = Settings(models_dir=tmp_path, grpc_port=0, http_port=0, ops_port=0, workers=2)
    async with lines() as (worker, supervisor):
        supervisor.answers["join"] = join
        async with running(settings, Supervised(worker, [])):
            assert await supervisor.ask("loaded") == {"2": sha256["2"]}
            assert await supervisor.ask("beat") is True
    assert said == [None, {"1": sha256["1"]}, {"2": sha256["2"]}]
