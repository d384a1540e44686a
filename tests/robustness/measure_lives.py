"""How long it takes until a worker that died or hangs is replaced, and what is lost meanwhile: L1 to L10.

    python -m tests.robustness.measure_lives

`tests/test_worker_lives.py` shows that it happens; nothing here passes or fails.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.answering import answering, overflowing, put
from tests.load import usage
from tests.server_process import COMMAND, ServerProcess, wait_until
from tests.test_worker_lives import CALLERS, Callers
from tests.worker_processes import connections, end_worker, is_alive, workers_of

AGE_S = 2


async def main() -> None:
    """Measure one after the other."""
    await told_to_stop()
    await killed()
    stopped()
    lost()
    taken()


async def told_to_stop() -> None:
    """L1: a server of two workers gets SIGTERM while it is asked."""
    with ServerProcess("--workers", "2", "--drain-delay-s", "1") as server:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
            await watch.read()
            async with Callers(server.grpc_address) as callers:
                began = time.monotonic()
                server.send(signal.SIGTERM)
                await watch.read()
                told = time.monotonic() - began
                await asyncio.sleep(1)
            watch.cancel()
        code = await asyncio.to_thread(server.process.wait)
        print(f"L1   NOT_SERVING after {told * 1000:.0f} ms, ended after {time.monotonic() - began:.1f} s with {code},")
        print(f"     {sum(callers.answered)} calls answered, failed: {callers.failed}")


async def killed() -> None:
    """L5 and L6: one of two workers is killed while both are asked."""
    with ServerProcess("--workers", "2", "--connection-age-s", str(AGE_S)) as server:
        async with Callers(server.grpc_address) as callers:
            pid, port = workers_of(server)[0], int(server.grpc_address.rpartition(":")[2])
            held, began = connections(pid, port), time.monotonic()
            await asyncio.to_thread(end_worker, server, 0)
            replaced = time.monotonic() - began
            lost_calls = len(callers.failed)
            await asyncio.sleep(2 * AGE_S)
            pids = workers_of(server)
            before = {number: usage.cpu_seconds(pid) for number, pid in pids.items()}
            await asyncio.sleep(2 * AGE_S)
            spent = {number: usage.cpu_seconds(pid) - before[number] for number, pid in pids.items()}
        print(f"L5   {lost_calls} calls lost of {CALLERS} in flight ({held} there), replaced after {replaced:.1f} s")
        print(f"L6   two ages later the new worker does {spent[0] / sum(spent.values()):.0%} of the work,")
        print(
            f"     {len(callers.failed) - lost_calls} of {sum(callers.answered)} calls lost to connections that ended"
        )


def stopped() -> None:
    """L7: one of two workers is stopped."""
    with ServerProcess("--workers", "2") as server:
        pid, began = workers_of(server)[0], time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: not is_alive(pid), 60)
        ended = time.monotonic() - began
        wait_until(lambda: server.metric("digitserve_workers") == 2, 60)
        print(f"L7   killed after {ended:.1f} s, replaced after {time.monotonic() - began:.1f} s")


def lost() -> None:
    """L8: the model's file ends every process that loads it."""
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder), 1, answering(1))
        with ServerProcess("--workers", "2", "--models-dir", folder) as server:
            put(Path(folder), 1, overflowing())
            began = time.monotonic()
            for pid in workers_of(server).values():
                os.kill(pid, signal.SIGKILL)
            code = server.process.wait()
            print(f"L8   ended after {time.monotonic() - began:.1f} s with {code}")


def taken() -> None:
    """L10: another server on the port of one with workers."""
    with ServerProcess("--workers", "2") as server:
        port, began = server.grpc_address.rpartition(":")[2], time.monotonic()
        command = [COMMAND, "serve", "--grpc-port", port, "--http-port", "0", "--ops-port", "0"]
        code = subprocess.run(command, capture_output=True).returncode
        print(f"L10  ended after {time.monotonic() - began:.1f} s with {code}")


if __name__ == "__main__":
    asyncio.run(main())
