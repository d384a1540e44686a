"""Counts of what happens to every single image, shown to Prometheus when it asks.

prometheus_client's own objects take a lock and half a microsecond for each
value, three of them an image. These are for the event loop's thread only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString


class Distribution(Collector):
    """A histogram."""

    def __init__(self, name: str, help: str, *, buckets: Sequence[float], registry: CollectorRegistry):
        """Begin empty; a bucket holds what is at most its number."""
        self._name, self._help, self._buckets = name, help, buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def add(self, values: Iterable[float]) -> None:
        """These were seen."""
        for value in values:
            self._counts[bisect_left(self._buckets, value)] += 1
            self._sum += value

    def collect(self) -> Iterator[Metric]:
        """The buckets, each with what is in those below, and the sum."""
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        counts = list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
        yield HistogramMetricFamily(self._name, self._help, buckets=counts, sum_value=self._sum)


class Total(Collector):
    """How many values there were, and their sum."""

    def __init__(self, name: str, help: str, *, registry: CollectorRegistry):
        """Begin with none."""
        self._name, self._help = name, help
        self._count, self._sum = 0, 0.0
        registry.register(self)

    def add(self, values: Sequence[float]) -> None:
        """These were seen."""
        self._count += len(values)
        self._sum += sum(values)

    def collect(self) -> Iterator[Metric]:
        """The count and the sum."""
        yield SummaryMetricFamily(self._name, self._help, count_value=self._count, sum_value=self._sum)


class Tally(Collector):
    """A counter with one label."""

    def __init__(self, name: str, help: str, label: str, *, known: Iterable[str] = (), registry: CollectorRegistry):
        """Begin with 0 for each of the known values of the label; `name` is without "_total"."""
        self._name, self._help, self._label = name, help, label
        self._counts = Counter(dict.fromkeys(known, 0))
        registry.register(self)

    def add(self, values: Iterable[str]) -> None:
        """One more for each of these values of the label."""
        for value in values:
            self._counts[value] += 1

    def collect(self) -> Iterator[Metric]:
        """The counts."""
        family = CounterMetricFamily(self._name, self._help, labels=(self._label,))
        for value, count in self._counts.items():
            family.add_metric((value,), count)
        yield family
