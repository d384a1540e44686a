"""Counts of what happens to every single call and image, shown to Prometheus when it asks.

prometheus_client's own objects take a lock and half a microsecond for each
value, eight of them a call. These are for the event loop's thread only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString


class Buckets:
    """Values by their size.

    Attributes:
        sum: Of the values.
    """

    def __init__(self, bounds: Sequence[float]):
        """Begin empty; a bucket holds what is at most its bound."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, values: Iterable[float]) -> None:
        """These were seen."""
        for value in values:
            self._counts[bisect_left(self._bounds, value)] += 1
            self.sum += value

    def shown(self) -> list[tuple[str, float]]:
        """The bounds as Prometheus writes them, each with how many values are at most that."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))


class Distribution(Collector):
    """A histogram."""

    def __init__(self, name: str, help: str, *, buckets: Sequence[float], registry: CollectorRegistry):
        """Begin empty; a bucket holds what is at most its number."""
        self._name, self._help, self._buckets = name, help, Buckets(buckets)
        registry.register(self)

    def add(self, values: Iterable[float]) -> None:
        """These were seen."""
        self._buckets.add(values)

    def collect(self) -> Iterator[Metric]:
        """The buckets, each with what is in those below, and the sum."""
        yield HistogramMetricFamily(self._name, self._help, buckets=self._buckets.shown(), sum_value=self._buckets.sum)


class Level(Collector):
    """A gauge."""

    def __init__(self, name: str, help: str, *, registry: CollectorRegistry):
        """Begin with 0."""
        self._name, self._help, self._value = name, help, 0
        registry.register(self)

    def change(self, by: int) -> None:
        """It is so much more, or less."""
        self._value += by

    def collect(self) -> Iterator[Metric]:
        """The value."""
        yield GaugeMetricFamily(self._name, self._help, value=self._value)


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


class MethodCalls:
    """The calls of one method.

    Attributes:
        begun: How many.
        ended_by: How many ended, by the name of their status.
        seconds: What they took.
    """

    def __init__(self, buckets: Sequence[float]):
        """Begin with none."""
        self.begun = 0
        self.ended_by: Counter[str] = Counter()
        self.seconds = Buckets(buckets)

    def started(self) -> None:
        """A call arrived."""
        self.begun += 1

    def ended(self, code: str, seconds: float) -> None:
        """A call ended with the status named `code`."""
        self.ended_by[code] += 1
        self.seconds.add((seconds,))


class Calls(Collector):
    """The calls of all methods, under the names that go-grpc-prometheus gave them."""

    _LABELS = ("grpc_type", "grpc_service", "grpc_method")

    def __init__(self, *, buckets: Sequence[float], registry: CollectorRegistry):
        """Begin with no method."""
        self._buckets = buckets
        self._methods: dict[tuple[str, str, str], MethodCalls] = {}
        registry.register(self)

    def of(self, kind: str, service: str, method: str) -> MethodCalls:
        """Those of one method, shown from now on."""
        method_calls = self._methods.get((kind, service, method))
        if method_calls is None:
            method_calls = self._methods[kind, service, method] = MethodCalls(self._buckets)
        return method_calls

    def collect(self) -> Iterator[Metric]:
        """The three families."""
        started = CounterMetricFamily("grpc_server_started", "Calls begun.", labels=self._LABELS)
        handled = CounterMetricFamily(
            "grpc_server_handled", "Calls ended, by status code.", labels=(*self._LABELS, "grpc_code")
        )
        handling = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Time from a call's start to its end.", labels=self._LABELS
        )
        for labels, calls in self._methods.items():
            started.add_metric(labels, calls.begun)
            handling.add_metric(labels, calls.seconds.shown(), calls.seconds.sum)
            for code, count in calls.ended_by.items():
                handled.add_metric((*labels, code), count)
        yield from (started, handled, handling)


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
