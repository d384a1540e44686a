"""Opening ports, over gRPC and HTTP, and what is said when one cannot be opened."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from service.errors import PortUnavailable

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves.

    Attributes:
        grpc_port: It listens on.
        http_port: It listens on.
        ops_port: It listens on, or its supervisor does.
        scheme: Of the two HTTP ports, "http" or "https".
        serves: In words what it answers with.
        failed: Ends with the reason why it cannot go on, once there is one.
    """

    grpc_port: int
    http_port: int
    ops_port: int
    scheme: str
    serves: str
    failed: asyncio.Future[None]


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
    *,
    shared: bool = False,
) -> int:
    """Serve an application until the stack is left; returns the port, which is a free one for 0.

    Args:
        stack: Closes the port.
        runner: Of the application.
        host: Address to listen on.
        port: 0 for a free one.
        flag: What chooses another.
        tls: None for plaintext.
        shared: Whether other processes that say so, too, may listen on it.

    Raises:
        PortUnavailable: It is taken, or the address is not ours.
    """
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls, reuse_port=shared).start()
    except (OSError, UnicodeError) as error:
        raise _unavailable(host, port, _reason(error), flag) from None
    actual: int = runner.addresses[0][1]
    return actual


def claim(stack: contextlib.ExitStack, host: str, port: int, flag: str) -> int:
    """Keep a port, until the stack is left, for processes of ours that will share it; returns it, a free one for 0.

    A port on which anybody listens is refused, also if they would share it: nobody may get a part of our calls.

    Raises:
        PortUnavailable: It is taken, or the address is not ours.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in addresses:
            keeping = stack.enter_context(socket.socket(family, kind, protocol))
            if family == socket.AF_INET6:
                keeping.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Connections of a server before us may linger.
            keeping.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeping.bind((address[0], port, *address[2:]))
            port = keeping.getsockname()[1]
            # Only now: before, it would have let us share with strangers.
            keeping.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if sys.platform == "linux":
                # Which lets in a second claim like this one until workers listen; of this name there is only one.
                stack.enter_context(socket.socket(socket.AF_UNIX)).bind(f"\0digitserve {address[0]} {port}")
    except (OSError, UnicodeError) as error:
        raise _unavailable(host, port, _reason(error), flag) from None
    return port


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "no address has a name like this"
    # asyncio's own text repeats the address; the numbers of gaierror are not the system's.
    return str(error.strerror) if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)


def _unavailable(host: str, port: int, reason: str, flag: str) -> PortUnavailable:
    return PortUnavailable(
        f"cannot listen on {host} port {port}: {reason}; choose another with {flag}, or another address with --host"
    )
