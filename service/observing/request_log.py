"""A line for each request, or for a share of them."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable, Iterable

from service.observing.logs import JSON, STDOUT, LineWriter, json_line, timestamp

# Of what callers choose, in bytes as JSON has it: a line has less than 2 KB, whatever they send.
FIELD_BYTES = {"method": 384, "peer": 128, "request_id": 128, "trace_id": 64, "user_agent": 256, "error": 640}
HEADERS = {"x-request-id": "request_id", "user-agent": "user_agent", "traceparent": "trace_id"}


class RequestLog:
    """Writes what became of requests: one line for each that was picked."""

    def __init__(self, writer: LineWriter, *, format: str, share: float):
        """Prepare.

        Args:
            writer: Writes the lines.
            format: "text" or "json".
            share: Of the requests that get a line, 0 to 1.
        """
        self._writer = writer
        self._is_json = format == JSON
        self._share = share

    @classmethod
    def on_stdout(cls, *, format: str, share: float, on_drop: Callable[[], None]) -> RequestLog | None:
        """A log on standard output; None where no request would get a line.

        Args:
            format: As above.
            share: As above.
            on_drop: Called for every line that cannot be written in time.
        """
        return cls(LineWriter(STDOUT, on_drop=on_drop), format=format, share=share) if share else None

    def flush(self) -> None:
        """Wait until everything is written, but not for long."""
        self._writer.flush()

    def picks(self) -> bool:
        """Whether the next request gets a line."""
        return random.random() < self._share

    def answered(
        self,
        method: str,
        code: str,
        seconds: float,
        *,
        peer: str,
        headers: Iterable[tuple[str, str | bytes]],
        error: str = "",
    ) -> None:
        """Write the line of a request.

        Args:
            method: As the caller named it: a gRPC method, or verb and path.
            code: Name of the gRPC status, or HTTP's number.
            seconds: From its start to its end.
            peer: Who called.
            headers: What was sent with it; the last one of a name counts.
            error: What the caller was told.
        """
        said = {"request_id": secrets.token_hex(8), "method": method, "peer": peer, "error": error}
        for name, value in headers:
            if (field := HEADERS.get(name.lower())) and isinstance(value, str):
                # 00-<trace id>-<span id>-<flags>
                said[field] = value[3:35] if field == "trace_id" else value
        now, ms = time.time(), round(seconds * 1000, 3)
        cut = {field: _cut(said[field], most) for field, most in FIELD_BYTES.items() if said.get(field)}
        if self._is_json:
            self._writer.put(json_line(now, "info", {"logger": "requests", "code": code, "ms": ms, **cut}))
        else:
            quoted = (f"{field}={json.dumps(text)}" for field, text in cut.items())
            self._writer.put(" ".join((timestamp(now), code, f"{ms} ms", *quoted)))


def _cut(text: str, most_bytes: int) -> str:
    """The beginning of a text, as much as fits when it is JSON."""
    text = text[:most_bytes]
    while (length := len(json.dumps(text))) > most_bytes:
        text = text[: len(text) * most_bytes // length]
    return text
