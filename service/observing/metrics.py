"""Every Prometheus series of the server, on a registry of its own.

Names of call metrics are those
dashboards already know (`grpc_server_*`, go-grpc-prometheus); everything of
ours begins with `digitserve_`. Times are in seconds.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from service.observing.tallies import Calls, Distribution, Level, MethodCalls, Tally, Total

SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONFIDENCE_BUCKETS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
DIGITS = tuple("0123456789")
IMAGES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


LARGE_GPU_NUMBER = re.compile(rb"^(nv_gpu_\S+ )(\S+e[+]\d+)$", re.MULTILINE)

# Name, help, type, and (name, labels, value) of each sample; all of it can be written as JSON.
Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
# Name, help, and the values by the values of the labels.
Series = tuple[str, str, Sequence[tuple[Sequence[str], float]]]


def exposition_of(collector: Collector) -> bytes:
    """All series of a collector or a registry in Prometheus' text format, of type `Metrics.content_type`."""
    text = generate_latest(collector)
    # perf_analyzer takes 1.073741824e+09 for 1.
    return LARGE_GPU_NUMBER.sub(lambda found: found[1] + f"{float(found[2]):.0f}".encode(), text)


def plain_families(registry: CollectorRegistry) -> list[Family]:
    """The series of a registry as plain values."""
    return [
        (each.name, each.documentation, each.type, [(at.name, dict(at.labels), at.value) for at in each.samples])
        for each in registry.collect()
    ]


class _Elsewhere(Collector):
    """Series counted elsewhere, without a type: whether they are counters, nobody needs to know."""

    def __init__(self, labels: Sequence[str], series: Callable[[], Iterable[Series]]):
        self._labels = labels
        self._series = series

    def collect(self) -> Iterator[Metric]:
        for name, help, values in self._series():
            family = UnknownMetricFamily(name, help, labels=self._labels)
            for labels, value in values:
                family.add_metric(labels, value)
            yield family


class Metrics:
    """The series, as methods named after what happened."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        # Twice as many series otherwise, each with a time that nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._calls = Calls(buckets=SECONDS_BUCKETS, registry=registry)
        self._queue_seconds = Distribution(
            "digitserve_queue_seconds",
            "Time images waited for the model, one observation per group of images submitted together.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._model_seconds = Distribution(
            "digitserve_model_run_seconds", "Time of one run of the model.", buckets=SECONDS_BUCKETS, registry=registry
        )
        self._batch_images = Distribution(
            "digitserve_batch_images", "Images in one run of the model.", buckets=IMAGES_BUCKETS, registry=registry
        )
        self._lag = Distribution(
            "digitserve_event_loop_lag_seconds",
            "How late timers of the event loop were; calls wait meanwhile where no limit counts them.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._decode_seconds = Distribution(
            "digitserve_decode_seconds",
            "Time to read and normalise one image file.",
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self._queue_images = Level("digitserve_queue_images", "Images waiting for the model.", registry=registry)
        self._predictions = Tally(
            "digitserve_predictions", "Images classified, by digit.", "digit", known=DIGITS, registry=registry
        )
        self._rejections = Tally(
            "digitserve_rejections", "Images whose prediction was rejected.", "reason", registry=registry
        )
        self._confidence = Distribution(
            "digitserve_confidence",
            "Calibrated probability of the digit that an image was read as.",
            buckets=CONFIDENCE_BUCKETS,
            registry=registry,
        )
        self._ink = Total(
            "digitserve_ink_ratio", "Mean of an image as the network sees it, 0 paper to 1 ink.", registry=registry
        )
        self._http = Counter(
            "digitserve_http_requests_total",
            "Requests over HTTP, by path and status.",
            ("path", "status"),
            registry=registry,
        )
        turned_away = Counter(
            "digitserve_turned_away_total",
            "Calls and requests without a token or certificate, or for a page of another site.",
            ("port",),
            registry=registry,
        )
        self._turned_away = {port: turned_away.labels(port) for port in ("grpc", "http")}
        self._log_lines_dropped = Counter(
            "digitserve_log_lines_dropped_total", "Lines about requests that nobody took in time.", registry=registry
        )
        self._ready = Gauge("digitserve_ready", "1 while the server is ready for calls, else 0.", registry=registry)
        self._model = Gauge(
            "digitserve_model_info",
            "1 for every model that is loaded.",
            ("name", "version", "sha256"),
            registry=registry,
        )
        loads = Counter("digitserve_model_loads_total", "Models loaded, or refused.", ("outcome",), registry=registry)
        # From the start, or Prometheus could not see the first one as an increase.
        self._loaded, self._refused = (loads.labels(outcome) for outcome in ("loaded", "refused"))
        self._provider = Info(
            "digitserve_provider", "ONNX Runtime execution providers, asked for and got.", registry=registry
        )
        self._fallback = Gauge(
            "digitserve_device_fallback",
            "1 while the model runs on another device than it was asked to, else 0.",
            registry=registry,
        )

        self._transport = Info("digitserve_transport", "What carries gRPC calls, and why.", registry=registry)

    def calls_of(self, kind: str, service: str, method: str) -> MethodCalls:
        """The series of one method; `kind` is "unary" or "bidi_stream"."""
        return self._calls.of(kind, service, method)

    def refused(self, path: str) -> None:
        """The transport has refused a unary call."""
        _, service, method = path.split("/")
        calls = self.calls_of("unary", service, method)
        calls.started()
        calls.ended("RESOURCE_EXHAUSTED", 0.0)

    def queue_changed(self, images: int) -> None:
        """This many more images wait for the model, or fewer."""
        self._queue_images.change(images)

    def model_ran(self, images: int, seconds: float, waits: Sequence[float]) -> None:
        """The model ran once, on groups of images that had waited this long."""
        self._batch_images.add((images,))
        self._model_seconds.add((seconds,))
        self._queue_seconds.add(waits)

    def loop_was_late(self, seconds: float) -> None:
        """A timer of the event loop was this late."""
        self._lag.add((seconds,))

    def image_decoded(self, seconds: float) -> None:
        """An image file was read, or found unreadable."""
        self._decode_seconds.add((seconds,))

    def predicted(
        self, digits: Sequence[int], confidences: Sequence[float], ink: Sequence[float], reasons: Sequence[str]
    ) -> None:
        """Images with these means of ink, 0 to 1, were classified; the reason is empty unless one was rejected."""
        self._predictions.add(map(DIGITS.__getitem__, digits))
        self._confidence.add(confidences)
        self._ink.add(ink)
        self._rejections.add(filter(None, reasons))

    def http_answered(self, path: str, status: int) -> None:
        """A request for a path, as it is written in the routes, was answered with this status."""
        self._http.labels(path, str(status)).inc()

    def turned_away(self, port: str) -> None:
        """A caller of "grpc" or "http" had no token, or no certificate."""
        self._turned_away[port].inc()

    def log_line_dropped(self) -> None:
        """A line about a request could not be written in time."""
        self._log_lines_dropped.inc()

    def serving(self, ready: bool) -> None:
        """The server became ready, or stopped being so."""
        self._ready.set(ready)

    def model_loaded(self, name: str, version: str, sha256: str) -> None:
        """A version answers now."""
        self._model.labels(name, version, sha256).set(1)
        self._loaded.inc()

    def model_removed(self, name: str, version: str, sha256: str) -> None:
        """A version answers no more."""
        with contextlib.suppress(KeyError):
            self._model.remove(name, version, sha256)

    def model_refused(self) -> None:
        """A version could not be loaded."""
        self._refused.inc()

    def providers(self, asked: Sequence[str], got: Sequence[str]) -> None:
        """The newest model was loaded with these execution providers."""
        self._provider.info({"asked": ",".join(asked), "got": ",".join(got)})
        self._fallback.set(got[0] != asked[0])

    def transport(self, name: str, reason: str) -> None:
        """This implementation carries gRPC calls."""
        self._transport.info({"name": name, "reason": reason})

    def families(self) -> list[Family]:
        """All series as plain values, to be added to those of others."""
        return plain_families(self._registry)

    def show_also(self, labels: Sequence[str], series: Callable[[], Iterable[Series]]) -> None:
        """Show series with these labels that are counted elsewhere, asked for whenever the metrics are."""
        self._registry.register(_Elsewhere(labels, series))

    async def exposition(self) -> bytes:
        """All series in Prometheus' text format, of type `content_type`; asked for as those of many workers are."""
        return exposition_of(self._registry)
