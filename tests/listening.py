"""A gRPC server of a test's own, on a free port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import grpc


@contextlib.asynccontextmanager
async def listening(server: grpc.aio.Server) -> AsyncIterator[str]:
    """Start a server that has its handlers; its address, as long as it serves."""
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
