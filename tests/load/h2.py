"""Load from h2load, which replays one gRPC message over HTTP/2 for a few microseconds of CPU a call.

A Python client costs more CPU than the server it measures. h2load sees HTTP only, where a refused call is a success
too: whether the answers were right is told by the server's own counters (see `bench`).
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

CONNECTIONS = 4
GRPC = "application/grpc"


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load.

    Attributes:
        calls: How many were answered.
        seconds: How long it lasted.
        latencies: Seconds of each call, float64.
        answer_bytes: Of an answer's body, on average; NaN where it was not counted.
    """

    calls: int
    seconds: float
    latencies: npt.NDArray[np.float64]
    answer_bytes: float = math.nan

    def percentile_ms(self, percent: float) -> float:
        """Milliseconds in which this share of the calls was answered."""
        return float(np.percentile(self.latencies, percent)) * 1000


class NothingAnswered(RuntimeError):
    """Not one call was answered in time: on a busy machine a server may not get a core for seconds."""


def is_installed() -> bool:
    """Whether h2load can be run."""
    return shutil.which("h2load") is not None


def body(*messages: bytes) -> bytes:
    """The body of a request with these messages: each after a flag, not compressed, and its length, big-endian."""
    return b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)


def closed_loop(
    address: str,
    path: str,
    body: bytes,
    *,
    in_flight: int,
    seconds: float,
    cpu: int | str,
    connections: int = CONNECTIONS,
    content_type: str = GRPC,
) -> Load:
    """Ask again as soon as an answer comes, with this many calls in flight.

    Args:
        address: host:port.
        path: "/package.Service/Method".
        body: Of the request, as `body` makes it.
        in_flight: Calls at a time.
        seconds: How long.
        cpu: The core that h2load may use, or several, as taskset has them.
        connections: Over which the calls go, if there are so many; over HTTP/1.1 there are as many as calls.
        content_type: Of the body; any but gRPC's goes over HTTP/1.1.

    Raises:
        NothingAnswered: Within these seconds, which h2load counts from when it connects.
        RuntimeError: h2load failed.
    """
    is_grpc = content_type == GRPC
    connections = min(connections, in_flight) if is_grpc else in_flight
    options = ["-c", str(connections), "-m", str(in_flight // connections), "-D", f"{seconds * 1000:.0f}ms"]
    options += ["-H", "te: trailers"] if is_grpc else ["--h1"]
    with tempfile.TemporaryDirectory() as folder:
        data, log = Path(folder) / "body", Path(folder) / "log"
        data.write_bytes(body)
        command = ["taskset", "-c", str(cpu), "h2load", *options, "-t", "1", "-d", str(data), f"--log-file={log}"]
        command += ["-H", f"content-type: {content_type}", f"http://{address}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"h2load ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        rows = log.read_text().split()  # microseconds since 1970, HTTP status, microseconds; and so on
    taken = np.array(rows[2::3], np.float64)[np.array(rows[1::3]) == "200"] / 1e6
    if not taken.size:
        said = re.search("^requests: .*", done.stdout, re.MULTILINE)
        raise NothingAnswered(f"{address}{path} answered nothing in {seconds:g} s; h2load: {said and said[0]}")
    return Load(len(taken), seconds, taken, answer_bytes(done.stdout))


def answer_bytes(said: str) -> float:
    """The bytes of an answer's body, on average, from what h2load said at its end; NaN if it did not say."""
    answered = re.search(r"(\d+) done,", said)
    data = re.search(r"\((\d+)\) data", said)
    return int(data[1]) / int(answered[1]) if data and answered and int(answered[1]) else math.nan
