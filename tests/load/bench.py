"""`make bench`: what the installed server costs and how fast it is on this machine, beside what nothing can beat.

The server has one core and the load another. Nothing here passes or fails: a row that cannot be measured says why, as
one does whose answers were wrong, and the others go on. Absolute figures drift on shared cores; ratios are of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
from pathlib import Path

from tests.load import batches, calls, h2, second_opinion, usage
from tests.load.measuring import Bench
from tests.load.report import Report
from tests.load.targets import targets
from tests.load.workers import workers
from tests.mnist_files import small_digits

# What can be left out, in the order in which it is measured.
PARTS = ("start", "floors", "calls", "batches", "neighbours", "growth", "perf_analyzer", "workers")


def main() -> None:
    """Measure everything, print a table, and write it as JSON and as pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", type=Path, required=True, help="the digitserve command to measure")
    parser.add_argument("--transport", choices=("grpcio", "native", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load; a run takes about 90 times as long")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for the JSON and the pictures")
    options = parser.parse_args()
    if not h2.is_installed():
        sys.exit("make bench needs h2load, which is in the package nghttp2-client of Debian and Ubuntu")
    report = Report()
    images, labels = small_digits("t10k")
    bench = Bench(options.server, options.seconds, images, int(labels[0]), report)
    # This process is a load as well.
    os.sched_setaffinity(0, {bench.load_cpu})
    measure(bench, asked := transports(options.transport), options.only)
    for target, of in targets(asked):
        with contextlib.suppress(KeyError):  # of a figure that was not measured
            value = of(report.figures)
            report.add("target", target.name, value, target.unit, target.verdict(value))
    for path in report.write(options.out):
        print(f"wrote {path}")


def measure(bench: Bench, transports: list[str], parts: list[str]) -> None:
    """These parts, on these transports."""
    if "floors" in parts:
        calls.floors(bench, transports)
    for transport in transports:
        if "start" in parts:
            calls.start_up(bench, transport)
        with bench.report.row(f"{transport}: the server"), bench.server(transport) as server:
            if "calls" in parts:
                calls.single_calls(bench, server, transport)
                name = f"{transport}: resident memory after single images"
                bench.report.add("memory", name, usage.resident_mb(server.process.pid), "MB")
            if "batches" in parts:
                batches.many_images(bench, server, transport)
            if "neighbours" in parts:
                batches.neighbours(bench, server, transport)
            if "growth" in parts:
                batches.batch_sizes(bench, server, transport)
            if "growth" in parts and transport == transports[0]:
                batches.picture_sizes(bench, server, transport)
            if "perf_analyzer" in parts:
                second_opinion.perf_analyzer(bench, server, transport)
        if "workers" in parts:
            workers(bench, transport)


def transports(asked: str) -> list[str]:
    """The transports to measure; the native one only where it is installed."""
    installed = ["grpcio", "native"] if importlib.util.find_spec("pygrpc_native") else ["grpcio"]
    return installed if asked == "both" else [asked]


if __name__ == "__main__":
    main()
