"""Calls at a set rate, whether answers come or not: what callers who do not know of each other do to a server.

h2load's own `--rps` looks at its clock every 10 ms and then sends all that was due at once: what it measures is its
bursts. Here calls arrive at random (a Poisson process), each at its time, on a few sockets that are watched without
rest; so the load wants a core of its own. HTTP/2 frames are made once and told apart by their heads only.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from dataclasses import dataclass

import numpy as np

from tests.load.h2 import CONNECTIONS, Load
from tests.robustness import http2
from tests.robustness.http2 import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS

MAX_BODY_BYTES = 16_384  # of a frame
# How long after the last call to wait for answers.
PATIENCE_S = 10.0
# Settings by their numbers: how many calls at a time a server takes, and the window of a stream.
MAX_STREAMS, WINDOW = 3, 4
WIDE = (1 << 31) - 1
_HEAD = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the calls. Latencies count from when a call was due (G. Tene's "coordinated omission").

    Attributes:
        answered: Those that got a message.
        refused: Those that got a status only.
        unanswered: Those that got nothing.
    """

    answered: Load
    refused: Load
    unanswered: int


def run(
    address: str,
    path: str,
    body: bytes,
    *,
    rate: float,
    seconds: float,
    connections: int = CONNECTIONS,
    seed: int = 0,
) -> Outcome:
    """Call at a rate.

    Args:
        address: host:port.
        path: "/package.Service/Method", of a unary call.
        body: Of the request, as `h2.body` makes it, at most `MAX_BODY_BYTES`.
        rate: Calls a second, on average.
        seconds: How long.
        connections: Over which the calls go.
        seed: Of the times of the calls.

    Raises:
        ConnectionError: The server closed a connection.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"the body has {len(body)} bytes, at most {MAX_BODY_BYTES} fit into a frame")
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=round(rate * seconds))
    due: list[float] = np.cumsum(gaps).tolist()
    lines = [_Line(address, path, body) for _ in range(connections)]
    try:
        return _run(lines, due)
    finally:
        for line in lines:
            line.socket.close()


def _run(lines: list[_Line], due: list[float]) -> Outcome:
    poll = select.epoll()
    by_number = {line.socket.fileno(): line for line in lines}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    latencies: dict[bool, list[float]] = {True: [], False: []}
    sent, began = 0, time.perf_counter()
    while len(latencies[True]) + len(latencies[False]) < len(due):
        now = time.perf_counter() - began
        if now > due[-1] + PATIENCE_S:
            break
        while sent < len(due) and due[sent] <= now:
            line = min(lines, key=lambda line: len(line.calls))
            if not line.has_room():
                # A window may be used up without a call in progress.
                others = [other for other in lines if other.has_room()]
                if not others:
                    break
                line = others[0]
            line.call(due[sent])
            sent += 1
        for number, _ in poll.poll(0):
            for called, has_message in by_number[number].answers():
                latencies[has_message].append(time.perf_counter() - began - called)
    loads = {kind: Load(len(taken), due[-1], np.array(taken)) for kind, taken in latencies.items()}
    return Outcome(loads[True], loads[False], len(due) - loads[True].calls - loads[False].calls)


class _Line:
    """A connection.

    Attributes:
        socket: What it goes over.
        calls: When those that are not answered were due, by stream.
    """

    def __init__(self, address: str, path: str, body: bytes):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Nobody has to tell how much more may come.
        wide = http2.frame(SETTINGS, 0, 0, struct.pack(">HI", WINDOW, WIDE))
        more = http2.frame(http2.WINDOW_UPDATE, 0, 0, _HEAD.pack(WIDE - 65_535))
        self.socket.sendall(http2.PREFACE + wide + more)
        block = http2.call_headers(path)
        # The number of the stream, which goes between these, is the last of a frame's head.
        self._before = http2.frame(HEADERS, END_HEADERS, 0, block)[:5]
        self._between = block + http2.frame(DATA, END_STREAM, 0, body)[:5]
        self._body = body
        self._next = 1
        self._window, self._max_calls = 65_535, 100
        self._received = b""
        self._with_message: set[int] = set()
        self.calls: dict[int, float] = {}

    def has_room(self) -> bool:
        """Whether the server takes another call at the moment."""
        return len(self.calls) < self._max_calls and self._window >= len(self._body)

    def call(self, due: float) -> None:
        """Begin the call that was due then."""
        number = _HEAD.pack(self._next)
        self.socket.sendall(b"".join((self._before, number, self._between, number, self._body)))
        self.calls[self._next] = due
        self._window -= len(self._body)
        self._next += 2

    def answers(self) -> list[tuple[float, bool]]:
        """Of each call that has just ended, when it was due, and whether a message came."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed a connection of the load")
        data = self._received + data
        ended, at = [], 0
        while len(data) - at >= 9 and len(data) - at >= 9 + (length := int.from_bytes(data[at : at + 3])):
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9])
            if kind == DATA:
                self._with_message.add(stream)
            elif kind not in (HEADERS, RST_STREAM):
                self._heed(kind, flags, stream, data[at + 9 : at + 9 + length])
            if stream in self.calls and (kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM)):
                ended.append((self.calls.pop(stream), kind == HEADERS and stream in self._with_message))
                self._with_message.discard(stream)
            at += 9 + length
        self._received = data[at:]
        return ended

    def _heed(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Do as the server wants."""
        if kind == http2.WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload)
        elif kind == PING and not flags & ACK:
            self.socket.sendall(http2.frame(PING, ACK, 0, payload))
        elif kind == SETTINGS and not flags & ACK:
            self._max_calls = dict(struct.iter_unpack(">HI", payload)).get(MAX_STREAMS, self._max_calls)
            self.socket.sendall(http2.frame(SETTINGS, ACK, 0))
