"""A worker's place among others: it speaks for all of them by way of the supervisor, and answers for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf import json_format

from protos import grpc_service_pb2 as pb
from service.model.loading import State
from service.observing.metrics import Metrics
from service.open_inference.control import Alone, Control
from service.processes.line import Line

# What all workers together have done of a version is as far as the slowest of them.
STATES = ("UNAVAILABLE", "LOADING", "READY")


class Supervised:
    """Stands for all workers.

    Attributes:
        others: The sha256 by version of what the other workers have loaded; None while there are none.
    """

    def __init__(self, line: Line, others: Mapping[str, str] | None):
        """Speak over a line to the supervisor."""
        self._line = line
        self.others = others

    def join(self, alone: Alone, metrics: Metrics, is_ready: Callable[[], bool]) -> Control:
        """Have the supervisor's questions answered by one worker; returns what speaks for all of them."""

        async def beat(_: Any) -> Any:
            return is_ready()

        async def families(_: Any) -> Any:
            return metrics.families()

        async def loaded(_: Any) -> Any:
            return alone.loaded()

        async def states(_: Any) -> Any:
            return [(each.version, each.state, each.reason) for each in await alone.states()]

        async def statistics(_: Any) -> Any:
            return [json_format.MessageToDict(each) for each in await alone.statistics()]

        self._line.answers |= {
            "beat": beat,
            "metrics": families,
            "loaded": loaded,
            "states": states,
            "statistics": statistics,
            "reload": lambda _: alone.reload(),
            "unload": lambda _: alone.unload(),
            "look": lambda _: alone.look(),
        }
        return self

    async def reload(self) -> None:
        """As `Loader.reload`, in every worker."""
        await self._line.ask("change", "reload")

    async def unload(self) -> None:
        """As `Loader.unload`, in every worker."""
        await self._line.ask("change", "unload")

    async def states(self) -> list[State]:
        """Every version that some worker knows, in the state of the worker where it is worst."""
        return common_states([[State(*each) for each in one] for one in await self._line.ask("all", "states")])

    async def statistics(self) -> list[pb.ModelStatistics]:
        """What every loaded version of every model did in all workers."""
        every = await self._line.ask("all", "statistics")
        return added([json_format.ParseDict(each, pb.ModelStatistics()) for one in every for each in one])


def common_states(workers: Iterable[Iterable[State]]) -> list[State]:
    """The states of versions in several workers as one list; a version that one of them lacks is LOADING there."""
    of_each = [{state.version: state for state in states} for states in workers]
    versions = sorted({version for states in of_each for version in states}, key=int)
    return [
        min(
            (states.get(version, State(version, "LOADING", "")) for states in of_each),
            key=lambda state: STATES.index(state.state),
        )
        for version in versions
    ]


def added(statistics: Iterable[pb.ModelStatistics]) -> list[pb.ModelStatistics]:
    """Statistics of several workers with their sums, one for each version of each model."""
    sums: dict[tuple[str, str], pb.ModelStatistics] = {}
    for each in statistics:
        total = sums.setdefault((each.name, each.version), pb.ModelStatistics(name=each.name, version=each.version))
        total.last_inference = max(total.last_inference, each.last_inference)
        total.inference_count += each.inference_count
        total.execution_count += each.execution_count
        for field, _ in each.inference_stats.ListFields():
            _add(getattr(total.inference_stats, field.name), getattr(each.inference_stats, field.name))
        batches = {batch.batch_size: batch for batch in total.batch_stats}
        for batch in each.batch_stats:
            into = batches.get(batch.batch_size) or total.batch_stats.add(batch_size=batch.batch_size)
            _add(into.compute_infer, batch.compute_infer)
    for total in sums.values():
        total.batch_stats.sort(key=lambda batch: batch.batch_size)
    names = [*dict.fromkeys(name for name, _ in sums)]
    return [sums[key] for key in sorted(sums, key=lambda key: (names.index(key[0]), int(key[1])))]


def _add(total: pb.StatisticDuration, duration: pb.StatisticDuration) -> None:
    total.count += duration.count
    total.ns += duration.ns
