"""T11: what callers send is in memory no longer than their calls are worked on."""

from __future__ import annotations

import asyncio
import gc
import weakref

import grpc

from service.errors import InvalidImage
from service.observing.metrics import Metrics
from service.over_grpc.interceptors import CallInterceptor
from service.over_grpc.transport import choose


class Request:
    """A request that tells whether it is still there."""


async def test_a_call_that_failed_leaves_nothing_until_the_next_garbage_collection(transport: str) -> None:
    requests: list[weakref.ref[Request]] = []

    def parse(data: bytes) -> Request:
        request = Request()
        requests.append(weakref.ref(request))
        return request

    async def fail(request: Request, context: object) -> bytes:
        error = InvalidImage("unreadable")
        raise error

    calls = CallInterceptor(Metrics(), None, max_message_bytes=1000)
    server = choose(transport, not_native=()).server([], [])
    handler = grpc.unary_unary_rpc_method_handler(fail, parse, bytes)
    calls.before(server).add_registered_method_handlers("a.B", {"C": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/a.B/C", None, None)
            for _ in range(5):
                assert await call(b"request").code() == grpc.StatusCode.INVALID_ARGUMENT
            await calls.idle.wait()
            for _ in range(500):
                if not any(request() for request in requests):
                    break
                await asyncio.sleep(0.01)
            assert len(requests) == 5 and not any(request() for request in requests)
    finally:
        gc.enable()
        await server.stop(None)
