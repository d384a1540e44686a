"""Three times the calls that a server can answer, and half of them afterwards: O1 to O4.

    python -m tests.robustness.measure_overload --transport native

The server, with its model, on one core; the calls, in an open loop, on the other. Nothing here passes or fails; that
late rows never run and what a refused call is told is shown by `test_overload`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.load import asks, h2, open_loop
from tests.robustness.processes import forget_peak, peak_bytes, resident_bytes
from tests.server_process import ServerProcess

SERVER_CPU, LOAD_CPU = 0, 1
# Each has a hundred calls at most, and three times the capacity is more than the queue holds.
CONNECTIONS = 40
HEALTH_HZ = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a server does with more than it can answer.")
    parser.add_argument("--transport", default="grpcio")
    parser.add_argument("--seconds", type=float, default=30, help="of the overload")
    parser.add_argument("--times", type=float, default=3, help="the capacity")
    parser.add_argument("--images", type=int, default=1, help="of a call; more cost more than to refuse the call does")
    parser.add_argument("--health-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CPU})
    if arguments.health_of:
        print(health(arguments.health_of, arguments.seconds))
        return
    with ServerProcess("--transport", arguments.transport, cpus=str(SERVER_CPU)) as server:
        overload(server, arguments.images, arguments.times, arguments.seconds)


def overload(server: ServerProcess, images: int, times: float, seconds: float) -> None:
    """O1 to O4 on a running server, with calls of so many images."""
    image, pid = np.asarray(Image.radial_gradient("L").resize((28, 28))), server.process.pid
    ask = asks.raw(image) if images == 1 else asks.batch(image, images)

    def load(rate: float, seconds: float) -> open_loop.Outcome:
        return open_loop.run(
            server.grpc_address, ask.path, ask.body, rate=rate, seconds=seconds, connections=CONNECTIONS
        )

    peak = 0.0
    for _ in range(3):
        calls = h2.closed_loop(server.grpc_address, ask.path, ask.body, in_flight=64, seconds=3, cpu=LOAD_CPU).calls
        peak = max(peak, calls / 3)
    usual = load(peak / 2, 5)
    print(f"peak {peak:,.0f} calls/s; at half of it: p99 {usual.answered.percentile_ms(99):.1f} ms")
    method = ask.path.rpartition("/")[2]
    base, codes = resident_bytes(pid), statuses(server, method)
    forget_peak(pid)
    command = [sys.executable, "-m", "tests.robustness.measure_overload", "--health-of", server.grpc_address]
    with subprocess.Popen([*command, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True) as looking:
        time.sleep(1)
        full = load(times * peak, seconds)
        # Its own patience for the last answers is no time of overload.
        after = [load(peak / 2, each) for each in (2, 3)]
        healthy = looking.communicate()[0]
    good, refused = full.answered, full.refused
    print(
        f"O1   {times:g} times that for {seconds:g} s: {good.calls / good.seconds:,.0f} answered a second, "
        f"{good.calls / good.seconds / peak:.0%} of the peak; p50 {good.percentile_ms(50):.0f}, "
        f"p99 {good.percentile_ms(99):.0f} ms; memory {(peak_bytes(pid) - base) / 1e6:+.0f} MB"
    )
    of_refused = f"p50 {refused.percentile_ms(50):.1f}, p99 {refused.percentile_ms(99):.1f} ms" if refused.calls else ""
    # What our own code has seen of all this; the rest was refused by gRPC itself.
    told = dict(statuses(server, method) - codes)
    print(f"O2   {refused.calls} refused, {of_refused}; {full.unanswered} without an answer; told {told}")
    print(f"O3   health: {healthy.strip()}")
    print(
        f"O4   half of the peak right after it: p99 {after[0].answered.percentile_ms(99):.1f} ms in the first 2 s, "
        f"{after[1].answered.percentile_ms(99):.1f} ms in the 3 s after, "
        f"{after[1].answered.percentile_ms(99) / usual.answered.percentile_ms(99):.1f} times as before"
    )


def statuses(server: ServerProcess, method: str) -> Counter[str]:
    """How many calls of a method have ended with each status."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(server.get(f"{server.ops_url}/metrics")):
        for sample in family.samples:
            if sample.name == "grpc_server_handled_total" and sample.labels["grpc_method"] == method:
                found[sample.labels["grpc_code"]] += round(sample.value)
    return found


def health(address: str, seconds: float) -> str:
    """Ask a server for its health, on the port that all calls take; what it said, and after how long."""
    taken, failed, until = [], Counter[str](), time.monotonic() + seconds
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)  # type: ignore[attr-defined]
                if answer.status != health_pb2.HealthCheckResponse.SERVING:
                    failed["not serving"] += 1
            except grpc.RpcError as error:
                failed[error.code().name] += 1
            taken.append(time.monotonic() - began)
            time.sleep(max(began + 1 / HEALTH_HZ - time.monotonic(), 0))
    p50, p99 = np.percentile(taken, (50, 99)) * 1e3
    return f"{len(taken)} times, p50 {p50:.0f}, p99 {p99:.0f} ms, failed {dict(failed)}"


if __name__ == "__main__":
    main()
