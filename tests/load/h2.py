"""Load from h2load, which replays one gRPC message over HTTP/2 for a few microseconds of CPU a call.

A Python client costs more CPU than the server it measures. h2load sees HTTP only, where a refused call is a success
too: whether the answers were right is told by the server's own counters (see `bench`).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

CONNECTIONS = 4
CONTENT_TYPE = "content-type: application/grpc"


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load.

    Attributes:
        calls: How many were answered.
        seconds: How long it lasted.
        latencies: Seconds of each call, float64.
    """

    calls: int
    seconds: float
    latencies: npt.NDArray[np.float64]

    def percentile_ms(self, percent: float) -> float:
        """Milliseconds in which this share of the calls was answered."""
        return float(np.percentile(self.latencies, percent)) * 1000


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
) -> Load:
    """Ask again as soon as an answer comes, with this many calls in flight.

    Args:
        address: host:port.
        path: "/package.Service/Method".
        body: Of the request, as `body` makes it.
        in_flight: Calls at a time.
        seconds: How long.
        cpu: The core that h2load may use, or several, as taskset has them.
        connections: Over which the calls go, if there are so many.
    """
    connections = min(connections, in_flight)
    options = ["-c", str(connections), "-m", str(in_flight // connections), "-D", f"{seconds * 1000:.0f}ms"]
    taken = _run(address, path, body, options, cpu)
    return Load(len(taken), seconds, taken)


def _run(address: str, path: str, body: bytes, options: list[str], cpu: int | str) -> npt.NDArray[np.float64]:
    """Run h2load; how long each call took, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        data, log = Path(folder) / "body", Path(folder) / "log"
        data.write_bytes(body)
        command = ["taskset", "-c", str(cpu), "h2load", *options, "-t", "1", "-d", str(data), f"--log-file={log}"]
        command += ["-H", CONTENT_TYPE, "-H", "te: trailers", f"http://{address}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"h2load ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        rows = np.loadtxt(log, dtype=np.float64, ndmin=2)  # microseconds since 1970, HTTP status, microseconds
    if not rows.size:
        raise RuntimeError(f"h2load was answered nothing by {address}{path}")
    taken: npt.NDArray[np.float64] = rows[rows[:, 1] == 200, 2] / 1e6
    return taken
