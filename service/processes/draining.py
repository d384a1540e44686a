"""The end of a server, in its order: it says so, takes no more calls, and finishes those it has taken."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
from aiohttp import web

from service.over_grpc.interceptors import CallInterceptor
from service.processes.readiness import Readiness

HANDOVER_S = 0.2


async def announce(readiness: Readiness, delay_s: float) -> None:
    """Say that no calls are welcome, and keep answering for those who have not heard it yet."""
    await readiness.open(False)
    await asyncio.sleep(delay_s)


async def finish_calls(
    server: grpc.aio.Server, calls: CallInterceptor, public: web.AppRunner, timeout_s: float
) -> None:
    """Take no more calls, over gRPC and HTTP, and let those in progress finish."""
    await asyncio.gather(_finish_grpc(server, calls, timeout_s), _finish_http(public))


async def _finish_http(public: web.AppRunner) -> None:
    for site in list(public.sites):
        await site.stop()
    # What is on its way over connections that were kept is still answered, and told to come no more.
    await asyncio.sleep(HANDOVER_S)
    await public.cleanup()


async def _finish_grpc(server: grpc.aio.Server, calls: CallInterceptor, timeout_s: float) -> None:
    calls.draining.set()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(calls.idle.wait(), timeout_s)
    # stop() ends as CANCELLED what gRPC has received and not yet handed over; a moment later it was refused in words.
    await asyncio.sleep(HANDOVER_S)
    # What is left are health watchers, who never leave by themselves, and calls beyond their time.
    await server.stop(None)
