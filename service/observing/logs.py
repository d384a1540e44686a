"""The log: lines that are written beside the work, dropped where they cannot be, and never more than lines.

Whoever logs waits for nobody: a reader that stalls, a full disk or a closed
pipe costs lines and nothing else. What callers sent is shown with its line
breaks and terminal commands escaped.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

TEXT, JSON = FORMATS = ("text", "json")
# 4 MB at the most, as lines of requests go; a second of them at 2,000 a second.
MAX_LINES = 2000
FLUSH_S = 1.0
# Lines are gathered for so long: a thread that wakes for each takes the interpreter from the calls as often.
GATHER_S = 0.02
# Python's own has no number where the process began without it.
STDOUT = 1
# What callers sent may be part of either.
MESSAGE_CHARACTERS, TRACEBACK_CHARACTERS = 2000, 8000
# What a pipe takes whole, so that the lines of several processes do not mix.
CHUNK_BYTES = select.PIPE_BUF


class LineWriter:
    """Writes lines to a file descriptor in a thread of its own."""

    def __init__(self, fd: int, *, max_lines: int = MAX_LINES, on_drop: Callable[[], None]):
        """Begin.

        Args:
            fd: Where to; it may block, and it may be closed.
            max_lines: That may wait; what comes on top is dropped.
            on_drop: Called for every line that is.
        """
        self._fd = fd
        self._max_lines = max_lines
        self._on_drop = on_drop
        self._waiting: deque[bytes] = deque()
        self._unwritten = 0
        self._arrived = threading.Event()
        threading.Thread(target=self._work, name="log", daemon=True).start()

    @property
    def has_room(self) -> bool:
        """Whether a line that comes now is not dropped at once."""
        return len(self._waiting) < self._max_lines

    def put(self, line: str) -> None:
        """Have a line written some time; returns at once."""
        if not self.has_room:
            self._on_drop()
            return
        self._waiting.append(line.encode(errors="backslashreplace") + b"\n")
        if not self._arrived.is_set():
            self._arrived.set()

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Wait until everything is written, but not for long."""
        deadline = time.monotonic() + timeout_s
        while (self._waiting or self._unwritten) and time.monotonic() < deadline:
            time.sleep(0.002)

    def _work(self) -> None:
        while True:
            self._arrived.wait()
            time.sleep(GATHER_S)
            self._arrived.clear()
            while self._waiting:
                self._write(self._chunk())

    def _chunk(self) -> bytes:
        lines: list[bytes] = []
        self._unwritten = 0
        while self._waiting and (not lines or self._unwritten + len(self._waiting[0]) <= CHUNK_BYTES):
            # In this order, `flush` sees a line in one of the two places.
            self._unwritten += len(self._waiting[0])
            lines.append(self._waiting.popleft())
        return b"".join(lines)

    def _write(self, chunk: bytes) -> None:
        while chunk:
            try:
                chunk = chunk[os.write(self._fd, chunk) :]
            except BlockingIOError:
                # Somebody who shares the file made it non-blocking.
                time.sleep(0.01)
            except OSError:
                for _ in range(chunk.count(b"\n")):
                    self._on_drop()
                break
        self._unwritten = 0


def say(text: str) -> None:
    """Have a text written to standard output some time, if it takes any: nobody waits for that."""
    LineWriter(STDOUT, on_drop=lambda: None).put(text)


class _Handler(logging.Handler):
    """Everything that is logged; once lines get through again, it says how many did not."""

    def __init__(self) -> None:
        super().__init__()
        self._dropped = 0
        self._writer = LineWriter(sys.stderr.fileno(), on_drop=self._drop)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped and self._writer.has_room:
                values = (__name__, logging.WARNING, "", 0, "%d lines of the log were dropped", (self._dropped,), None)
                self._dropped = 0
                self._writer.put(self.format(logging.LogRecord(*values)))
            self._writer.put(self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        self._writer.flush()

    def _drop(self) -> None:
        self._dropped += 1


class _TextFormatter(logging.Formatter):
    def __init__(self, speaker: str):
        who = f"{speaker} " if speaker else ""
        super().__init__(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return escaped(super().formatMessage(record)[:MESSAGE_CHARACTERS])

    def formatException(self, ei: object) -> str:
        # Its line breaks are Python's, and those of the error's own text cannot be told from them.
        traceback = super().formatException(ei)[-TRACEBACK_CHARACTERS:]  # type: ignore[arg-type]
        return "\n".join(map(escaped, traceback.split("\n")))


class _JsonFormatter(logging.Formatter):
    def __init__(self, speaker: str):
        super().__init__()
        self._speaker = {"process": speaker} if speaker else {}

    def format(self, record: logging.LogRecord) -> str:
        facts = {"logger": record.name, "message": record.getMessage()[:MESSAGE_CHARACTERS], **self._speaker}
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)[-TRACEBACK_CHARACTERS:]
        return json_line(record.created, record.levelname.lower(), facts)


def start(format: str, speaker: str = "") -> None:
    """Begin to log on stderr, in lines of text or of JSON; one of several processes says with each which it is."""
    # What a port that is taken means, we say ourselves.
    logging.getLogger("pygrpc_native").setLevel(logging.ERROR)
    # What it has to say is about callers who do not speak HTTP.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # A caller who leaves while an answer is sent; anyone could fill the log with it.
    logging.getLogger("grpc._cython.cygrpc").addFilter(lambda record: "raised in core" not in record.getMessage())
    handler = _Handler()
    handler.setFormatter(_JsonFormatter(speaker) if format == JSON else _TextFormatter(speaker))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def escaped(text: str) -> str:
    """A text in one line, without anything a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def json_line(seconds: float, level: str, facts: Mapping[str, object]) -> str:
    """A line of the log as JSON."""
    return json.dumps({"time": timestamp(seconds), "level": level, **facts})


def timestamp(seconds: float) -> str:
    """A time since 1970 as ISO 8601 has it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
