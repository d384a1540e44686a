"""Rows of one worker and of two.

On a machine of two cores there is none left for the load of two workers, which then share both with it. What two
would do on two cores of their own follows, there, from what a call costs the server in CPU time: twice the calls of
one, as much less as a call costs more. With more cores it is measured.
"""

from __future__ import annotations

from tests.load import asks, usage
from tests.load.measuring import Bench, Measured

# One call at a time on each: so many that the kernel gives either worker about half of them, and enough to do.
CONNECTIONS = 64


def workers(bench: Bench, transport: str) -> None:
    """Calls a second, measured and by CPU time."""
    rest = bench.cores[2:]
    with bench.report.row(f"{transport}: workers"):
        one = _measured(bench, f"{transport}: 1 worker, load on another core", transport, 1, [bench.load_cpu])
        shared = "load on others" if rest else "load on the same cores"
        two = _measured(bench, f"{transport}: 2 workers, {shared}", transport, 2, rest or bench.cores)
        by_cpu = 2 * one.rate * one.cpu_us / two.cpu_us
        times = f"{two.rate / one.rate:.2f} x measured, {by_cpu / one.rate:.2f} x by CPU time"
        own = two.rate if rest else by_cpu
        bench.report.add("workers", f"{transport}: 2 workers on cores of their own", own, "calls/s", times)
        bench.report.point("workers", "1 worker on its own core", transport, one.rate)
        bench.report.point("workers", f"2 workers, {shared}", transport, two.rate)
        bench.report.point("workers", "2 workers on cores of their own, by CPU time", transport, by_cpu)


def _measured(bench: Bench, name: str, transport: str, count: int, load_cpus: list[int]) -> Measured:
    with bench.server(transport, "--workers", str(count), cpus=",".join(map(str, bench.cores[:count]))) as server:
        ask, cpu = asks.raw(bench.images[0]), ",".join(map(str, load_cpus))
        done = bench.measure(server, ask, CONNECTIONS, cpu=cpu, connections=CONNECTIONS)
        note = f"{done.cpu_us:7.1f} us CPU a call   {usage.resident_mb(server.process.pid):.0f} MB"
    bench.report.add("workers", name, done.rate, "calls/s", note, cpu_us=done.cpu_us)
    return done
