"""What access and the log cost a call, and how soon renewed certificates count.

python -m tests.robustness.measure_access

The server on one core, the callers on the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from service.client import Access, AsyncClient
from service.client.client_channel import PLAINTEXT
from tests.certificates import certificate_of, context_of, make_certificates, renew
from tests.server_process import ServerProcess

TOKEN = "measured-81b7e64a053f9d2c"
IMAGE = np.zeros((28, 28), np.uint8)
CALLS, IN_FLIGHT = 3000, 8
LOG_ALL = ("--log-request-share", "1", "--log-format", "json")


async def latencies(address: str, access: Access) -> list[float]:
    """Seconds of each call, in ascending order."""
    async with AsyncClient(address, access=access) as client:
        found: list[float] = []

        async def ask() -> None:
            while len(found) < CALLS:
                began = time.perf_counter()
                await client.classify(IMAGE)
                found.append(time.perf_counter() - began)

        await client.classify(IMAGE)
        await asyncio.gather(*(ask() for _ in range(IN_FLIGHT)))
    return sorted(found)


@contextlib.contextmanager
def reading(process: ServerProcess) -> Iterator[None]:
    """Somebody takes every line of the server's standard output."""
    assert process.process.stdout is not None
    threading.Thread(target=process.process.stdout.read, daemon=True).start()
    yield


def measure(name: str, process: ServerProcess, access: Access = PLAINTEXT) -> None:
    """Print a line about a server."""
    cpu, calls = process.metric("process_cpu_seconds_total"), process.metric("grpc_server_handled_total")
    found = asyncio.run(latencies(process.grpc_address, access))
    cpu = process.metric("process_cpu_seconds_total") - cpu
    calls = process.metric("grpc_server_handled_total") - calls
    dropped = process.metric("digitserve_log_lines_dropped_total")
    p50, p99 = (1000 * found[len(found) * part // 100] for part in (50, 99))
    times = f"{1e6 * cpu / calls:7.0f} us CPU a call   p50 {p50:6.2f}  p99 {p99:6.2f} ms"
    print(f"{name:36} {times}   {dropped:5.0f} lines dropped", flush=True)


def main() -> None:
    """Measure."""
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        (folder / "tokens").write_text(TOKEN)
        token = ("--token-file", str(folder / "tokens"))
        tls = ("--tls-cert-file", str(folder / "tls.crt"), "--tls-key-file", str(folder / "tls.key"))
        transport = ("--transport", "grpcio")
        with ServerProcess(*transport, cpus="0") as process:
            measure("plaintext, no log", process)
            began = time.perf_counter()
            length = len(process.get(f"{process.ops_url}/metrics"))
            print(f"a scrape takes {1000 * (time.perf_counter() - began):.1f} ms, {length} bytes")
        with ServerProcess(*transport, *LOG_ALL, cpus="0") as process, reading(process):
            measure("a line for each request, read", process)
        with ServerProcess(*transport, *LOG_ALL, cpus="0") as process:
            measure("a line for each request, stalled", process)
        with ServerProcess(*transport, "--log-request-share", "0.01", cpus="0") as process, reading(process):
            measure("a line for one of a hundred", process)
        with ServerProcess(*transport, *token, token=TOKEN, cpus="0") as process:
            measure("with tokens", process, Access(token=TOKEN))
        context = context_of(folder, None)
        with ServerProcess(*transport, *tls, tls=context, cpus="0") as process:
            measure("with TLS", process, Access(ca=(folder / "ca.crt").read_bytes()))
            before, began = certificate_of(process.grpc_address, folder), time.perf_counter()
            renew(folder)
            renewing_s = time.perf_counter() - began
            while certificate_of(process.grpc_address, folder) == before:
                time.sleep(0.01)
            print(f"a renewed certificate is shown after {time.perf_counter() - began - renewing_s:.2f} s")


if __name__ == "__main__":
    main()
