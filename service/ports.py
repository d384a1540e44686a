"""Opening ports, over gRPC and HTTP, and what is said when one cannot be opened."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING

from aiohttp import web

from service.errors import PortUnavailable

if TYPE_CHECKING:
    import grpc


def open_grpc(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    """Have a gRPC server listen; returns the port, which is a free one for 0.

    Args:
        server: Not started yet.
        host: Address to listen on.
        port: 0 for a free one.
        credentials: TLS; None for plaintext.

    Raises:
        PortUnavailable: It is taken, or the address is not ours.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise _unavailable(host, port, "taken, or not allowed", "--grpc-port") from None


async def open_http(
    stack: contextlib.AsyncExitStack,
    runner: web.AppRunner,
    host: str,
    port: int,
    flag: str,
    tls: ssl.SSLContext | None,
) -> int:
    """Serve an application until the stack is left; returns the port, which is a free one for 0.

    Args:
        stack: Closes the port.
        runner: Of the application.
        host: Address to listen on.
        port: 0 for a free one.
        flag: What chooses another.
        tls: None for plaintext.

    Raises:
        PortUnavailable: It is taken, or the address is not ours.
    """
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    except socket.gaierror as error:
        raise _unavailable(host, port, str(error.strerror), flag) from None
    except OSError as error:
        # asyncio's own text repeats the address.
        raise _unavailable(host, port, os.strerror(error.errno or 0), flag) from None
    actual: int = runner.addresses[0][1]
    return actual


def _unavailable(host: str, port: int, reason: str, flag: str) -> PortUnavailable:
    return PortUnavailable(
        f"cannot listen on {host} port {port}: {reason}; choose another with {flag}, or another address with --host"
    )
