"""A worker's place among others: it speaks for all of them by way of the supervisor, and answers for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf import json_format

from protos import grpc_service_pb2 as pb
from service.model.loading import Loader, State
from service.observing.metrics import Metrics
from service.open_inference.control import Alone, Control
from service.processes.line import Line

# What all workers together have done of a version is as far as the slowest of them.
STATES = ("UNAVAILABLE", "LOADING", "READY")


class Supervised:
    """Stands for all workers."""

    def __init__(self, line: Line, predecessor: Any):
        """Speak over a line to the supervisor; `predecessor` are the statistics of whoever had this place, as told."""
        self._line = line
        self._predecessor = _parsed(predecessor)

    def speak_for(self, alone: Alone, metrics: Metrics, is_ready: Callable[[], bool]) -> Control:
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
            # As if it had never ended.
            both = added([*self._predecessor, *await alone.statistics()])
            return [json_format.MessageToDict(each) for each in both]

        self._alone = alone
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

    async def load(self, loader: Loader) -> None:
        """Load what the other workers answer with, or, if there are none, what is there; from then on it counts as one.

        Raises:
            StartError: It cannot be loaded.
        """
        loaded = None
        # Others may change what they answer with while this one loads.
        while not (answer := await self._line.ask("join", loaded))["joined"]:
            others = answer["others"]
            await (loader.start() if others is None else loader.join(others))
            loaded = self._alone.loaded()

    async def reload(self) -> None:
        """As `Loader.reload`, in every worker."""
        await self._line.ask("change", "reload")

    async def unload(self) -> None:
        """As `Loader.unload`, in every worker."""
        await self._line.ask("change", "unload")

    async def states(self) -> list[State]:
        """Every version that some worker knows, in the state of the worker where it is worst."""
        return common_states([[State(*each) for each in one] for one in await self._line.ask("states")])

    async def statistics(self) -> list[pb.ModelStatistics]:
        """What every loaded version of every model did in all workers, and in those whose places they took."""
        loaded = {(each.name, each.version) for each in await self._alone.statistics()}
        every = [each for one in await self._line.ask("statistics") for each in _parsed(one)]
        return added(each for each in every if (each.name, each.version) in loaded)


def _parsed(statistics: Iterable[Any]) -> list[pb.ModelStatistics]:
    return [json_format.ParseDict(each, pb.ModelStatistics()) for each in statistics]


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
