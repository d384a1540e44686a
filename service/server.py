"""Builds everything and owns the order of life and death; the only composition root.

Life:  operations port, gRPC (NOT_SERVING), HTTP, model loaded and warm, batcher, SERVING.
Death: NOT_SERVING, drain delay, calls in progress finish, batcher, everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import TYPE_CHECKING

import grpc
from aiohttp import web as aiohttp_web
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import digits_pb2, digits_pb2_grpc, grpc_service_pb2, grpc_service_pb2_grpc
from service.classifier import Classifier
from service.errors import RuntimeMissing
from service.explanation.explaining import Explainer
from service.model import repository
from service.model.loading import Loader
from service.model.opening import open_model
from service.model.recovery import Recovery
from service.model.runtime import LayerSession
from service.model.trial import Trials
from service.model.versions import Versions
from service.observing import gpu_metrics, triton_metrics
from service.observing.lag import watch_lag
from service.observing.metrics import Metrics
from service.observing.request_log import RequestLog
from service.open_inference.control import Alone
from service.open_inference.doors import Doors
from service.open_inference.inference import Inference
from service.over_grpc import digits, grpc_admission, inference_calls, transport
from service.over_grpc.calls import Streams
from service.over_grpc.grpc_admission import TokenInterceptor
from service.over_grpc.grpcio_options import grpcio_options, max_connections
from service.over_grpc.inference_calls import InferenceCalls
from service.over_grpc.interceptors import CallInterceptor
from service.over_grpc.reflection import add_reflection
from service.over_grpc.transport import Transport
from service.over_http import page, web
from service.over_http.http_admission import guard
from service.over_http.http_connections import Runner
from service.over_http.operations import operations_app
from service.pictures.decoding import Decoder
from service.pictures.images import ImageReader
from service.processes import ports, resources
from service.processes.draining import announce, finish_calls
from service.processes.ports import Running
from service.processes.readiness import Readiness
from service.processes.supervised import Supervised
from service.security import Security
from service.settings import Settings

if TYPE_CHECKING:
    from service.observing.tracing import Tracing

log = logging.getLogger(__name__)

# Health answers for them by name.
HEALTH_NAMES = (digits.SERVICE, inference_calls.SERVICE)
# Settings that ask for what the native transport lacks, unless they are at their default.
NOT_NATIVE = ("tls_cert_file", "token_file", "max_connections", "connection_age_s", "connection_grace_s")


@contextlib.asynccontextmanager
async def running(settings: Settings, supervised: Supervised | None = None) -> AsyncIterator[Running]:
    """A server that serves while the context lasts; leaving it drains.

    Args:
        settings: How it runs.
        supervised: Its place, if it is one of several workers, which share ports and have one supervisor.

    Raises:
        StartError: The server cannot start; nothing is left open.
    """
    room = resources.available()
    share = resources.share(
        room, workers=settings.workers, threads=settings.threads, decode_threads=settings.decode_threads
    )
    settings = dataclasses.replace(settings, threads=share.threads)
    lacking = settings.changed(*NOT_NATIVE)
    if supervised and settings.transport == "auto":
        # By which a new worker gets its part of the calls; whoever asks for the native transport by name does without.
        lacking.append("--connection-age-s with --workers")
    carrier = transport.choose(settings.transport, not_native=lacking)
    connections = resources.connections(max_connections(settings))
    settings = dataclasses.replace(settings, max_connections=connections)
    metrics = Metrics()
    metrics.transport(carrier.name, carrier.reason)
    metrics.serving(False)
    security = Security.of(
        settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file, settings.token_file
    )
    reader = ImageReader(settings.max_image_bytes, settings.max_image_pixels)
    tracing = _tracing() if settings.tracing == "on" else None
    decoder = Decoder(
        reader,
        threads=share.decode_threads,
        max_images=settings.max_queue_images,
        max_bytes=settings.max_queue_bytes,
        observer=metrics,
    )
    versions = Versions(
        max_run_images=settings.max_run_images,
        max_queue_images=settings.max_queue_images,
        max_run_s=settings.max_run_s,
        observer=tracing.observer(metrics) if tracing else metrics,
        around=tracing.batcher if tracing else None,
    )
    if settings.triton_metrics == "on":
        metrics.show_also(("model", "version"), lambda: triton_metrics.series(versions, settings.model_name))
    if settings.device != "cpu" and (nvml := gpu_metrics.open_nvml()):
        metrics.show_also(("gpu_uuid",), lambda: gpu_metrics.series(nvml))
    classifier = Classifier(
        tracing.decoder(decoder) if tracing else decoder,
        versions,
        max_batch_images=settings.max_batch_images,
        max_call_s=settings.max_call_s,
        observer=metrics,
    )
    explainer = Explainer(reader, classifier, versions, make_session=LayerSession)
    readiness = Readiness(HEALTH_NAMES, metrics, has_model=lambda: bool(versions.loaded()))
    trials = Trials()
    recovery = Recovery()
    loader = Loader(
        versions,
        find=lambda: repository.find(settings.models_dir, settings.model_name),
        # A file that ends the process must not take along what answers, or could answer.
        load=lambda file, is_only: open_model(settings, file, None if is_only else trials, recovery.device_lost),
        policy=settings.model_versions,
        observer=metrics,
        on_change=readiness.tell,
    )
    alone = Alone(loader, versions, Doors(versions, explainer.layers))
    inference = Inference(
        classifier,
        explainer,
        versions,
        supervised.speak_for(alone, metrics, readiness.is_ready) if supervised else alone,
        policy=settings.model_versions,
        model_name=settings.model_name,
        allows_control=settings.model_control == "explicit",
        is_ready=readiness.is_open,
        server_version=version("digitserve"),
        max_batch_images=settings.max_batch_images,
        max_run_images=settings.max_run_images,
    )

    async with contextlib.AsyncExitStack() as stack:
        request_log = RequestLog.on_stdout(
            format=settings.log_format, share=settings.log_request_share, on_drop=metrics.log_line_dropped
        )
        if request_log:
            stack.callback(request_log.flush)
        if tracing:
            stack.push_async_callback(tracing.close)
        calls = CallInterceptor(
            metrics,
            request_log,
            tracing.around_call if tracing else None,
            max_message_bytes=settings.max_message_bytes,
            max_queue_bytes=settings.max_queue_bytes,
            pushes_back=carrier.name == transport.GRPCIO,
            holds_back=carrier.name == transport.GRPCIO,
        )
        stack.callback(decoder.close)
        stack.callback(explainer.close)
        stack.callback(asyncio.create_task(security.follow()).cancel)
        stack.callback(asyncio.create_task(watch_lag(metrics.loop_was_late)).cancel)
        ops_port = settings.ops_port
        if not supervised:
            app = operations_app(metrics.exposition, metrics.content_type, readiness.is_ready)
            ops = _http(app, settings, security, metrics, max_connections=resources.OPERATORS)
            tls = security.tls(has_probes=True)
            ops_port = await ports.open_http(stack, ops, settings.host, settings.ops_port, "--ops-port", tls)
        server = _grpc_server(carrier, settings, security, metrics, request_log, shared=bool(supervised))
        counted = calls.before(server)
        await readiness.tell()
        streams = Streams(calls.draining, calls.answers.hang_up)
        _add_digits(counted, carrier, settings, classifier, explainer, versions, streams)
        window = settings.stream_window_images
        oip = InferenceCalls(inference, stream_window=window, streams=streams)
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(oip, counted)
        health_pb2_grpc.add_HealthServicer_to_server(readiness.servicer, counted)
        if settings.reflection == "on":
            add_reflection(counted, (digits_pb2.DESCRIPTOR, grpc_service_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR))
        app = web.public_app(
            classifier,
            explainer,
            inference,
            metrics,
            log=request_log,
            max_image_bytes=settings.max_image_bytes,
            max_message_bytes=settings.max_message_bytes,
            max_queue_bytes=settings.max_queue_bytes,
            keeps_connections=readiness.is_open,
        )
        if settings.page == "on":
            page.add_routes(app, versions, version("digitserve"), settings.max_image_bytes)
        if tracing:
            app.middlewares.insert(0, tracing.around_requests())
        public = _http(app, settings, security, metrics, max_connections=connections)

        async def listen() -> tuple[int, int]:
            credentials = grpc_admission.credentials(security.certificates)
            grpc_port = ports.open_grpc(server, settings.host, settings.grpc_port, credentials)
            await server.start()
            stack.push_async_callback(server.stop, None)
            tls, shared = security.tls(has_probes=False), bool(supervised)
            http_port, flag = settings.http_port, "--http-port"
            return grpc_port, await ports.open_http(stack, public, settings.host, http_port, flag, tls, shared=shared)

        # Alone, it says that it is not ready; a worker must not be given calls that others could answer.
        listening = None if supervised else await listen()
        await stack.enter_async_context(versions)
        stack.push_async_callback(loader.close)
        # Before the loader closes: it waits for what is being loaded, and the drain has its own limit.
        stack.callback(trials.close)
        await (supervised.load(loader) if supervised else loader.start())
        recovery.begin(loader.reopen)
        grpc_port, http_port = listening or await listen()
        stack.push_async_callback(finish_calls, server, calls, public, settings.drain_timeout_s)
        await readiness.open(True)
        log.info("gRPC calls are carried by %s: %s", carrier.name, carrier.reason)
        stack.push_async_callback(announce, readiness, settings.drain_delay_s)
        if settings.model_control == "poll" and not supervised:
            stack.callback(asyncio.create_task(loader.watch(settings.model_poll_s)).cancel)
        if not supervised:
            log.info("cores: %s; threads: %s", room, share)
        yield Running(grpc_port, http_port, ops_port, security.scheme, versions.in_words(), recovery.failed)


def _tracing() -> Tracing:
    try:
        from service.observing.tracing import Tracing
    except ImportError:
        raise RuntimeMissing("--tracing on needs OpenTelemetry; run: pip install 'digitserve[tracing]'") from None
    return Tracing.to_collector(version("digitserve"))


def _grpc_server(
    carrier: Transport,
    settings: Settings,
    security: Security,
    metrics: Metrics,
    request_log: RequestLog | None,
    *,
    shared: bool,
) -> grpc.aio.Server:
    guards = []
    if security.tokens:
        guards.append(TokenInterceptor(security.tokens, request_log, lambda: metrics.turned_away("grpc")))
    options = grpcio_options(settings, shared=shared)
    return carrier.server(options, guards, max_waiting=settings.max_queue_images, on_refused=metrics.refused)


def _add_digits(
    server: grpc.aio.Server,
    carrier: Transport,
    settings: Settings,
    classifier: Classifier,
    explainer: Explainer,
    versions: Versions,
    streams: Streams,
) -> None:
    limits = digits_pb2.Limits(
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
        max_batch_images=settings.max_batch_images,
        max_message_bytes=settings.max_message_bytes,
    )
    servicer = digits.DigitClassifier(
        classifier,
        explainer,
        versions,
        about_server=digits_pb2.GetModelResponse(
            limits=limits, transport=carrier.name, transport_reason=carrier.reason
        ),
        stream_window_images=min(settings.stream_window_images, settings.max_batch_images),
        streams=streams,
    )
    digits_pb2_grpc.add_DigitClassifierServicer_to_server(servicer, server)


def _http(
    app: aiohttp_web.Application, settings: Settings, security: Security, metrics: Metrics, *, max_connections: int
) -> aiohttp_web.AppRunner:
    guard(app, security, lambda: metrics.turned_away("http"))
    patience_s = settings.drain_timeout_s
    return Runner(app, web.refusal(metrics), max_connections=max_connections, shutdown_timeout=patience_s)
