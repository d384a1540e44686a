"""The metrics of many workers as one exposition, as if one process had counted everything.

A worker that has ended leaves what it counted in the sums: a counter that fell
would look to Prometheus like a restart of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.observing.metrics import Family, exposition_of, plain_families

# Series that outlive a worker. What has no type is Triton's: counters with names that Prometheus' counters cannot have,
# and one that is none.
COUNTING = {"counter", "histogram", "summary", "unknown"}
PENDING = "nv_inference_pending_request_count"
# What every worker says of the same thing: the model, or the GPU.
FACTS = re.compile(r".*_info|digitserve_provider|digitserve_transport|digitserve_device_fallback|nv_gpu_.*")
READY = "digitserve_ready"
STARTED = "process_start_time_seconds"


class GatheredMetrics(Collector):
    """The series of all workers and of their supervisor."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        """Begin without workers."""
        # As in `metrics`.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._ready = Gauge(READY, "1 while the server is ready for calls, else 0.", registry=registry)
        self._workers = Gauge("digitserve_workers", "Workers that are ready for calls.", registry=registry)
        ends = Counter(
            "digitserve_worker_ends_total",
            "Workers that ended or hung.",
            ("how",),
            registry=registry,
        )
        # From the start, or Prometheus could not see the first one as an increase.
        self._ends = {how: ends.labels(how) for how in ("ended", "hung")}
        turned_away = Counter(
            "digitserve_turned_away_total",
            "Calls and requests without a token or certificate, or for a page of another site.",
            ("port",),
            registry=registry,
        )
        self._turned_away = turned_away.labels("http")
        self._latest: dict[int, Sequence[Family]] = {}
        self._left: Sequence[Family] = ()

    def turned_away(self) -> None:
        """A request to the operations port had no token, or no certificate."""
        self._turned_away.inc()

    def seen(self, worker: int, families: Sequence[Family]) -> None:
        """Remember the latest series of a worker, by its number."""
        self._latest[worker] = [family for family in families if family[0] != READY]

    def ended(self, worker: int, how: str) -> None:
        """A worker "ended", or "hung" and was ended; what it counted stays."""
        self._ends[how].inc()
        self._left = added([self._left, filter(_outlives, self._latest.pop(worker, ()))])

    def exposition(self, ready_workers: int, is_ready: bool) -> bytes:
        """All series in Prometheus' text format, of type `content_type`.

        Args:
            ready_workers: Workers that are ready for calls.
            is_ready: Whether the server as a whole is.
        """
        self._ready.set(is_ready)
        self._workers.set(ready_workers)
        return exposition_of(self)

    def collect(self) -> Iterator[Metric]:
        """The sums."""
        for name, help, kind, samples in added([plain_families(self._registry), self._left, *self._latest.values()]):
            metric = Metric(name, help, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric


def _outlives(family: Family) -> bool:
    name, _, kind, _ = family
    return kind in COUNTING and name != PENDING and not FACTS.fullmatch(name)


def added(sources: Iterable[Iterable[Family]]) -> list[Family]:
    """The families of several processes with the sums of their samples; of facts and starting times there is one."""
    kinds: dict[str, tuple[str, str]] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in sources:
        for family, help, kind, samples in families:
            kinds[family] = help, kind
            into = sums.setdefault(family, {})
            for name, labels, value in samples:
                sample = name, tuple(labels.items())
                into[sample] = _add(family, into[sample], value) if sample in into else value
    return [
        (family, *kinds[family], [(name, dict(labels), value) for (name, labels), value in samples.items()])
        for family, samples in sums.items()
    ]


def _add(family: str, one: float, other: float) -> float:
    if family == STARTED:
        return min(one, other)
    if FACTS.fullmatch(family):
        return max(one, other)
    return one + other
