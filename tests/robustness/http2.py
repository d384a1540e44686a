"""HTTP/2 frames by hand, well-formed or not, over a blocking socket.

Enough of RFC 9113 to attack a server; header blocks are literals without
compression (RFC 7541, 6.2.2), so that nothing else is needed to write them.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CANCEL = struct.pack(">I", 8)
CLASSIFY = "/digits.v1.DigitClassifier/Classify"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def header_block(fields: Mapping[str, str]) -> bytes:
    """Headers that no table remembers."""
    block = b""
    for name, value in fields.items():
        block += b"\0" + _text(name.encode()) + _text(value.encode())
    return block


def _text(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, length = len(text) - 127, b"\x7f"
    while rest >= 128:
        length += bytes((rest % 128 + 128,))
        rest //= 128
    return length + bytes((rest,)) + text


def call_headers(path: str = CLASSIFY, **more: str) -> bytes:
    """The headers of a gRPC call."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
    return header_block({**fields, "content-type": "application/grpc", "te": "trailers", **more})


def message(body: bytes) -> bytes:
    """A gRPC message as it stands in DATA frames."""
    return b"\0" + struct.pack(">I", len(body)) + body


class Connection:
    """A connection to a server, with nothing sent yet; a context manager."""

    def __init__(self, address: str, *, timeout_s: float = 20.0):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._received = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(b"".join(pieces))

    def greet(self, settings: bytes = b"") -> None:
        """Send the preface and settings, and acknowledge the server's."""
        self.send(PREFACE, frame(SETTINGS, 0, 0, settings), frame(SETTINGS, ACK, 0))

    def open(self, stream: int, headers: bytes | None = None) -> None:
        """Open a stream with the headers of a call; it stays open."""
        self.send(frame(HEADERS, END_HEADERS, stream, call_headers() if headers is None else headers))

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of what arrives, until the server closes.

        Raises:
            TimeoutError: Nothing came for `timeout_s`.
        """
        while True:
            while len(self._received) >= 9 + (length := int.from_bytes(self._received[:3])):
                kind, flags = self._received[3:5]
                payload = self._received[9 : 9 + length]
                stream = int.from_bytes(self._received[5:9]) & 0x7FFFFFFF
                self._received = self._received[9 + length :]
                yield kind, flags, stream, payload
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError:
                return
            if not data:
                return
            self._received += data

    def send_message(self, stream: int, data: bytes) -> None:
        """Send the only message of a call, as fast as the server lets us, and end the stream."""
        windows = {0: 65_535, stream: 65_535}
        frames = self.frames()
        while data:
            size = min(len(data), *windows.values(), 16_384)
            if size:
                piece, data = data[:size], data[size:]
                self.send(frame(DATA, 0 if data else END_STREAM, stream, piece))
                windows = {which: window - size for which, window in windows.items()}
                continue
            kind, flags, which, payload = next(frames)
            if kind == WINDOW_UPDATE and which in windows:
                windows[which] += int.from_bytes(payload)
            elif kind == SETTINGS and not flags:
                windows[stream] += dict(struct.iter_unpack(">HI", payload)).get(4, 65_535) - 65_535
            elif (kind, which) == (HEADERS, stream) or (kind, which) == (RST_STREAM, stream):
                # It has heard enough.
                return

    def until(self, *kinds: int) -> int | None:
        """Read up to a frame of one of these kinds; its kind, or None if the server closed before."""
        return next((kind for kind, *_ in self.frames() if kind in kinds), None)

    def seconds_until_closed(self, at_most: float) -> float | None:
        """How long the server takes to close the connection; None if it has not by then."""
        began = time.monotonic()
        with contextlib.suppress(ConnectionError, OSError):
            while (left := began + at_most - time.monotonic()) > 0:
                ready, _, _ = select.select([self.socket], [], [], left)
                if ready and not self.socket.recv(1 << 16):
                    return time.monotonic() - began
            return None
        return time.monotonic() - began
