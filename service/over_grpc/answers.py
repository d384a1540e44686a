"""What callers are to be sent and do not take.

gRPC keeps an answer until the caller's windows have room for it, and has no
way of its own to give one up: a call that is cancelled while it sends stays in
memory for ever. What ends it is the end of the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from service.errors import QueueFull
from service.runs.turns import CALLER

log = logging.getLogger(__name__)

# Answers up to this count for nothing: of those of one image, a connection's hundred calls hold next to nothing.
LIGHT_BYTES = 1 << 12
# Of large answers on their way, before more are refused; each is there three times, as message and bytes, and in gRPC.
MOST_BYTES = 32 << 20
MOST_BYTES_OF_ONE = MOST_BYTES // 2
# What sending one may take: an hour of layers of sixteen images needs 50 kB/s.
MAX_SEND_S = 60.0
# Callers are hung up on together: to find their sockets means to look at all that are open.
GATHER_S = 0.05
DESCRIPTORS = "/dev/fd"


class Answers:
    """The large answers of unary calls that gRPC is sending."""

    def __init__(self) -> None:
        """Start with none."""
        self._bytes = 0
        self._of: Counter[str] = Counter()
        self._leaving: set[str] = set()

    def counted(self, serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        """A serializer of answers whose large ones count until they are sent, which ends the task of the call."""

        def write(answer: Any) -> bytes:
            data = serialize(answer)
            if len(data) > LIGHT_BYTES:
                self._send(len(data))
            return data

        return write

    def check(self, answer: Any) -> None:
        """See that an answer to this task's caller, None where it was a stream, is none too many.

        Raises:
            QueueFull: It is large, and too much has not been taken yet.
        """
        if self._bytes <= MOST_BYTES_OF_ONE or answer is None or (size := answer.ByteSize()) <= LIGHT_BYTES:
            return
        own = self._of[CALLER.get()]
        if self._bytes > MOST_BYTES or own > MOST_BYTES_OF_ONE:
            raise QueueFull(
                f"answers of {self._bytes} bytes are not taken yet, {own} of them by this connection, and {size} more "
                f"would exceed the limits of {MOST_BYTES} and {MOST_BYTES_OF_ONE}; read them, and try again"
            )

    def hang_up(self, caller: str) -> bool:
        """Break the connection of a caller, a moment later; False where it is a Unix socket, which has no name."""
        if not caller.startswith("ip"):
            return False
        if not self._leaving:
            asyncio.get_running_loop().call_later(GATHER_S, self._hang_up)
        self._leaving.add(caller)
        return True

    def _send(self, size: int) -> None:
        task, caller = asyncio.current_task(), CALLER.get()
        if task is None:
            return
        timer = asyncio.get_running_loop().call_later(MAX_SEND_S, self.hang_up, caller)
        self._bytes += size
        self._of[caller] += size

        def sent(_: object) -> None:
            timer.cancel()
            self._bytes -= size
            self._of[caller] -= size
            if not self._of[caller]:
                del self._of[caller]

        task.add_done_callback(sent)

    def _hang_up(self) -> None:
        leaving, self._leaving = self._leaving, set()
        for descriptor in map(int, os.listdir(DESCRIPTORS)):  # noqa: PTH208 - names, not paths
            # Of a copy, which stays ours if gRPC closes its own meanwhile. Most are no sockets, or have no peer.
            with (
                contextlib.suppress(OSError),
                socket.fromfd(descriptor, socket.AF_INET6, socket.SOCK_STREAM) as connection,
            ):
                if (caller := _name(connection.getpeername())) in leaving:
                    connection.shutdown(socket.SHUT_RDWR)
                    log.info("hung up on %s, who does not take what it asked for", caller)


def _name(address: Any) -> str:
    """What gRPC calls the peer at the address of a socket; "" for one that is not of the internet."""
    if not isinstance(address, tuple):
        return ""
    host, port = address[0].removeprefix("::ffff:"), address[1]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"
