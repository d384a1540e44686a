"""What a second worker brings: calls a second with one worker and with two, on two cores that the load is on as well.

    python -m tests.load.workers --server .venv-serve/bin/digitserve

With two cores there is none left for the load. So one worker is measured on one core, with the load on the other; two
on both, beside the load. What two would do on two cores of their own follows from what a call costs the server in CPU
time: twice the calls of one, as much less as a call costs more.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

from protos import digits_pb2 as pb
from tests.load import h2, usage
from tests.mnist_files import small_digits
from tests.server_process import ServerProcess

CLASSIFY = "/digits.v1.DigitClassifier/Classify"
# One call at a time on each: so many that the kernel gives either worker about half of them, and enough to do.
CONNECTIONS = 64
BOTH = "0,1"


def main() -> None:
    """Measure both transports and print a table."""
    parser = argparse.ArgumentParser(description="What a second worker brings, on two cores.")
    parser.add_argument("--server", type=Path, required=True, help="the digitserve command to measure")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    options = parser.parse_args()
    images, _ = small_digits("t10k")
    request = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=images[0].tobytes())
    body = h2.body(request.SerializeToString())
    for transport in ("grpcio", "native"):
        flags = ("--transport", transport, "--workers")
        with ServerProcess(*flags, "1", command=options.server, cpus="0") as server:
            one, cost_of_one = measure(f"{transport}, 1 worker on 1 core", server, body, options.seconds, "1")
        with ServerProcess(*flags, "2", command=options.server, cpus=BOTH) as server:
            two, cost_of_two = measure(f"{transport}, 2 workers on 2 cores", server, body, options.seconds, BOTH)
        print(f"{'':36} {two / one:.2f} x; by CPU time, on cores of their own {2 * cost_of_one / cost_of_two:.2f} x")


def measure(name: str, server: ServerProcess, body: bytes, seconds: float, cpus: str) -> tuple[float, float]:
    """Calls a second, and seconds of the server's CPU time for one."""

    def load(seconds: float) -> h2.Load:
        return h2.closed_loop(
            *(server.grpc_address, CLASSIFY, body),
            in_flight=CONNECTIONS,
            seconds=seconds,
            cpu=cpus,
            connections=CONNECTIONS,
        )

    load(1)
    answered = server.metric("digitserve_predictions_total")
    of_server, of_load = usage.cpu_seconds(server.process.pid), _children_cpu_seconds()
    calls = load(seconds).calls
    of_server = usage.cpu_seconds(server.process.pid) - of_server
    of_load = _children_cpu_seconds() - of_load
    answered = server.metric("digitserve_predictions_total") - answered
    if answered < calls:
        raise RuntimeError(f"{name}: {calls} calls were answered, and the server read {answered:.0f} images")
    print(
        f"{name:36} {calls / seconds:8,.0f} calls/s  {of_server / calls * 1e6:6.1f} us of the server's CPU a call, "
        f"{of_load / calls * 1e6:5.1f} of the load's  {usage.resident_mb(server.process.pid):4.0f} MB"
    )
    return calls / seconds, of_server / calls


def _children_cpu_seconds() -> float:
    """Of h2load: the server still runs, and does not count yet."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
