"""Several server processes as one: keeps their ports, starts them, and speaks for all of them to operators.

This process answers no calls and holds nothing of gRPC. Life and death are
those of `server`: operations port, workers, SERVING; NOT_SERVING, and down.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable

from aiohttp import web

from service.errors import CallError
from service.over_http.http_admission import guard
from service.over_http.http_connections import Runner
from service.over_http.operations import operations_app
from service.processes import ports, resources
from service.processes.gathering import GatheredMetrics
from service.processes.ports import Running
from service.processes.resources import Resources, Share
from service.processes.signals import until_signalled
from service.processes.worker_process import WorkerProcess
from service.processes.workers import Workers
from service.security import Security
from service.settings import Settings

log = logging.getLogger(__name__)

# What a worker needs to end beyond the time that calls in progress get.
MARGIN_S = 5.0
# What a worker may take to tell its metrics; one that stands still is ended later than that.
SCRAPE_S = 1.0


async def supervise(settings: Settings, room: Resources, share: Share, on_serving: Callable[[Running], None]) -> int:
    """Keep workers serving until a signal, and let them drain; returns the exit code.

    Args:
        settings: Of every worker.
        room: What there is to use.
        share: How many workers, and their threads.
        on_serving: Called once when all are ready for calls.

    Raises:
        StartError: A port is taken, or a worker cannot start.
        WorkersLost: No worker stays alive.
    """
    metrics = GatheredMetrics()
    security = Security.of(
        settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file, settings.token_file
    )
    serving = draining = False

    def on_end(worker: WorkerProcess) -> None:
        metrics.ended(worker.number, "hung" if worker.hung else "ended")

    def is_ready() -> bool:
        return serving and not draining and bool(workers.ready())

    async def exposition() -> bytes:
        # Of one that does not answer, what was last seen counts.
        for worker, families in await workers.ask_all("metrics", within_s=SCRAPE_S):
            metrics.seen(worker.number, families)
        return metrics.exposition(len(workers.ready()), is_ready())

    async with contextlib.AsyncExitStack() as stack:
        kept = stack.enter_context(contextlib.ExitStack())
        grpc_port = ports.claim(kept, settings.host, settings.grpc_port, "--grpc-port")
        http_port = ports.claim(kept, settings.host, settings.http_port, "--http-port")
        settings = dataclasses.replace(settings, grpc_port=grpc_port, http_port=http_port, workers=share.workers)
        workers = Workers(share.workers, settings.texts(), on_end)
        following = asyncio.create_task(security.follow())
        stack.callback(following.cancel)
        app = operations_app(exposition, metrics.content_type, is_ready)
        guard(app, security, metrics.turned_away)
        ops = Runner(app, _refuse, max_connections=resources.OPERATORS, shutdown_timeout=settings.drain_timeout_s)
        tls = security.tls(has_probes=True)
        ops_port = await ports.open_http(stack, ops, settings.host, settings.ops_port, "--ops-port", tls)
        stack.push_async_callback(workers.end)
        signalled = asyncio.create_task(until_signalled(lambda: serving, workers.kill))
        serves = await workers.start()
        serving = True
        log.info("%d workers; cores: %s; threads: %s", share.workers, room, share)
        on_serving(Running(grpc_port, http_port, ops_port, security.scheme, serves, workers.lost))
        if settings.model_control == "poll":
            looking = asyncio.create_task(_look(workers, settings.model_poll_s))
            stack.callback(looking.cancel)
        await asyncio.wait((signalled, workers.lost), return_when=asyncio.FIRST_COMPLETED)
        if workers.lost.done():
            workers.lost.result()
        draining = True
        finished = await workers.drain(settings.drain_delay_s + settings.drain_timeout_s + MARGIN_S)
    return 0 if finished else 1


def _refuse(status: int, _: BaseException | None) -> web.Response:
    return web.Response(status=status)


async def _look(workers: Workers, every_s: float) -> None:
    """Have all workers look at the models' folder at the same time, again and again."""
    while True:
        await asyncio.sleep(every_s)
        # All may be starting again; then they have looked.
        with contextlib.suppress(CallError):
            await workers.change("look")
