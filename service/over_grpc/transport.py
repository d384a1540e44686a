"""Which gRPC implementation carries the calls, and why; nothing else of the service knows which one it is.

grpcio, or pygrpc-native: HTTP/2 in Rust for the same servicers, at a third of
the CPU, without TLS and with fewer limits on connections.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from service.errors import InvalidSetting, PortUnavailable, RuntimeMissing

GRPCIO, NATIVE = "grpcio", "native"
PACKAGE = "pygrpc_native"
# Options that pygrpc-native refuses to be given. It ignores others it does not know, as gRPC does.
NATIVE_REFUSES = {
    "grpc.max_allowed_incoming_connections",
    "grpc.max_connection_age_grace_ms",
    "grpc.max_connection_age_ms",
    "grpc.max_connection_idle_ms",
}
# What does the same under another name. By default it waits 20 s for the answer to a ping.
NATIVE_NAMES = {"grpc.http2.ping_timeout_ms": "grpc.keepalive_timeout_ms"}


@dataclass(frozen=True, slots=True)
class Transport:
    """The implementation that was taken.

    Attributes:
        name: "grpcio" or "native".
        reason: Why, in words.
    """

    name: str
    reason: str

    def server(
        self,
        options: Sequence[tuple[str, int]],
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        *,
        max_waiting: int,
        on_refused: Callable[[str], object],
    ) -> grpc.aio.Server:
        """A server of this kind, not started.

        Args:
            options: As for grpcio; the native transport leaves out those it lacks.
            interceptors: As for `grpc.aio.server`.
            max_waiting: Calls that have arrived and not begun, before the native transport refuses more; grpcio has
                limits of its own.
            on_refused: Told the path of a call that the transport has refused.
        """
        if self.name == GRPCIO:
            return grpc.aio.server(interceptors=interceptors, options=options)
        from service.over_grpc.native import NativeServer

        known = [(NATIVE_NAMES.get(name, name), value) for name, value in options if name not in NATIVE_REFUSES]
        return NativeServer(interceptors, known, max_waiting=max_waiting, on_refused=on_refused)


def choose(asked: str, *, not_native: Sequence[str]) -> Transport:
    """The transport to take.

    Args:
        asked: "grpcio", "native", or "auto": native where it is installed and has all that is asked for.
        not_native: Flags in use that ask for what it lacks.

    Raises:
        RuntimeMissing: It is asked for and not installed.
        InvalidSetting: It is asked for, together with what it lacks.
        PortUnavailable: It is asked for, and cannot have the Unix socket that it needs.
    """
    if asked == GRPCIO:
        return Transport(GRPCIO, "asked for")
    installed = importlib.util.find_spec(PACKAGE) is not None
    if asked == NATIVE:
        if not installed:
            raise RuntimeMissing(
                "--transport native needs pygrpc-native; run: pip install 'digitserve[native]', or use --transport auto"
            )
        if not_native:
            raise InvalidSetting(
                f"--transport native has nothing for {', '.join(not_native)}; leave that out, or use --transport grpcio"
            )
        if problem := _socket_problem():
            raise PortUnavailable(f"--transport native: {problem}; set TMPDIR to another, or use --transport grpcio")
        return Transport(NATIVE, "asked for")
    if not installed:
        return Transport(GRPCIO, "pygrpc-native is not installed")
    if not_native:
        return Transport(GRPCIO, f"the native transport has nothing for {', '.join(not_native)}")
    if problem := _socket_problem():
        return Transport(GRPCIO, f"for the native transport, {problem}")
    return Transport(NATIVE, "installed, and has all that is asked for")


def _socket_problem() -> str:
    """What keeps the native transport from the Unix socket over which it hands streams on; nothing where nothing does.

    Callers are told, too, so that it names no path.
    """
    try:
        # Names of the length that pygrpc-native gives.
        with tempfile.TemporaryDirectory(prefix="pygrpc-native-") as folder, socket.socket(socket.AF_UNIX) as trial:
            trial.bind(f"{folder}/fallback.sock")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "its path is too long"
        return f"the folder of temporary files cannot hold a Unix socket: {reason}"
    return ""
