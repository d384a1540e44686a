"""Spans of OpenTelemetry for calls and requests; imported only where tracing is on.

Each call is a span, in the trace that its caller names (W3C Trace Context).
Below it are `receive` (until its first image is taken up), `decode`, `queue`,
`run` and `reply` (after its last answer). A run of the model serves many
callers: it is the span `batch` in the trace of the first of them, and the
`run` of each links to it. Sampling, collector and the rest are set by
OpenTelemetry's own variables, OTEL_*.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.errors import CallError
from service.pictures.decoding import Decoder
from service.runs import batching
from service.runs.batching import Batcher
from service.runs.queueing import Outcome

W3C = TraceContextTextMapPropagator()
W3C_HEADERS = ("traceparent", "tracestate")
# Of the statuses a call may end with, those that OpenTelemetry holds to be the server's errors.
ERRORS = {"DEADLINE_EXCEEDED", "UNIMPLEMENTED", "UNAVAILABLE"}
CLOSE_S = 2.0


@dataclass(slots=True)
class _Call:
    """A call in progress that was picked by the sampler; times are in nanoseconds since 1970."""

    span: Span
    began: int
    received: int | None = None
    answered: int | None = None


@dataclass(slots=True, eq=False)
class _Run:
    """A run of the model, and its span, once somebody wants to link to it."""

    began: int
    ended: int
    images: int
    span: SpanContext | None = None


_current: ContextVar[_Call | None] = ContextVar("call", default=None)


class Tracing:
    """Makes the spans."""

    def __init__(self, provider: TracerProvider):
        """Prepare; the provider is closed with this."""
        self._provider = provider
        self._tracer = provider.get_tracer("digitserve")

    @classmethod
    def to_collector(cls, version: str) -> Tracing:
        """Spans go to a collector over OTLP and HTTP; what it does not take is dropped."""
        name = os.environ.get("OTEL_SERVICE_NAME", "digitserve")
        provider = TracerProvider(resource=Resource.create({"service.name": name, "service.version": version}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    async def close(self) -> None:
        """Send what is left, but not for long: a collector may be away."""
        # Python waits at its end for every thread but these.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_S)

    def around_call(self, name: str, handle: Any) -> Any:
        """A gRPC handler whose calls are spans."""

        async def traced(request: Any, context: Any) -> Any:
            headers = {key: value for key, value in context.invocation_metadata() or () if key in W3C_HEADERS}
            with self._call(name, headers, {"rpc.system": "grpc"}):
                return await handle(request, context)

        return traced

    def around_requests(self) -> Middleware:
        """A middleware that makes a span of every request over HTTP."""

        @web.middleware
        async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            name = f"{request.method} {resource.canonical if resource else 'none'}"
            headers = {key: request.headers[key] for key in W3C_HEADERS if key in request.headers}
            with self._call(name, headers, {"http.request.method": request.method}) as span:
                response = await handler(request)
                span.set_attribute("http.response.status_code", response.status)
                if response.status >= 500:
                    span.set_status(StatusCode.ERROR)
                return response

        return traced

    def decoder(self, decoder: Decoder) -> Decoder:
        """A decoder whose work is in spans."""
        return cast(Decoder, _TracedDecoder(decoder, self))

    def batcher(self, batcher: Batcher[Any]) -> Batcher[Any]:
        """A batcher whose work is in spans, if it tells `observer` of its runs."""
        return cast("Batcher[Any]", _TracedBatcher(batcher, self))

    def observer(self, observer: batching.Observer) -> batching.Observer:
        """Tells an observer what it is told, and remembers runs."""
        return _RunObserver(observer)

    @contextlib.contextmanager
    def _call(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, str]) -> Iterator[Span]:
        span = self._tracer.start_span(name, W3C.extract(headers, Context()), SpanKind.SERVER, attributes)
        if not span.is_recording():
            yield span
            return
        call = _Call(span, time.time_ns())
        token = _current.set(call)
        try:
            yield span
        except CallError as error:
            span.set_attribute("rpc.response.status_code", error.status)
            if error.status in ERRORS:
                span.set_status(StatusCode.ERROR, str(error))
            raise
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            _current.reset(token)
            now = time.time_ns()
            if call.answered is not None:
                self.phase(call, "reply", call.answered, now)
            span.end(now)

    def received(self, call: _Call, now: int) -> None:
        """Its first image is taken up."""
        if call.received is None:
            call.received = now
            self.phase(call, "receive", call.began, now)

    def phase(
        self, call: _Call, name: str, began: int, ended: int, images: int | None = None, run: object = None
    ) -> None:
        """A part of a call, with a link to the run that it waited for."""
        attributes = {} if images is None else {"digitserve.images": images}
        parent = set_span_in_context(call.span, Context())
        span = self._tracer.start_span(name, parent, attributes=attributes, start_time=began)
        if isinstance(run, _Run):
            if run.span is None:
                batch = self._tracer.start_span(
                    "batch",
                    set_span_in_context(span, Context()),
                    attributes={"digitserve.images": run.images},
                    start_time=run.began,
                )
                batch.end(run.ended)
                run.span = batch.get_span_context()
            span.add_link(run.span)
        span.end(ended)


class _RunObserver:
    def __init__(self, observer: batching.Observer):
        self._observer = observer

    def queue_changed(self, images: int) -> None:
        self._observer.queue_changed(images)

    def model_ran(self, images: int, seconds: float, waits: Sequence[float]) -> _Run:
        self._observer.model_ran(images, seconds, waits)
        now = time.time_ns()
        return _Run(now - int(seconds * 1e9), now, images)


class _TracedDecoder:
    def __init__(self, decoder: Decoder, tracing: Tracing):
        self._decoder = decoder
        self._tracing = tracing
        self.close = decoder.close

    async def read(self, files: Sequence[bytes], deadline: float | None = None) -> list[Any]:
        call, began = _current.get(), time.time_ns()
        if call is None:
            return await self._decoder.read(files, deadline)
        self._tracing.received(call, began)
        try:
            return await self._decoder.read(files, deadline)
        finally:
            self._tracing.phase(call, "decode", began, time.time_ns(), len(files))


class _TracedBatcher:
    def __init__(self, batcher: Batcher[Any], tracing: Tracing):
        self._batcher = batcher
        self._tracing = tracing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batcher, name)

    async def submit(self, images: Any, *rest: Any) -> Outcome[Any]:
        call, began = _current.get(), time.time_ns()
        if call is None:
            return await self._batcher.submit(images, *rest)
        self._tracing.received(call, began)
        outcome = await self._batcher.submit(images, *rest)
        call.answered, ran = time.time_ns(), began + int(outcome.queue_seconds * 1e9)
        self._tracing.phase(call, "queue", began, ran, len(images))
        self._tracing.phase(call, "run", ran, call.answered, len(images), outcome.run)
        return outcome
