"""`make bench-peers`: what the servers cost that a user might pick instead, with the same model and the same load.

Each is installed into an environment of its own on first use (1.6 GB in all). The server has one core and the load
another. Where a server speaks it, the load is ModelInfer of the Open Inference Protocol over gRPC, one image of raw
pixels a call; else it is JSON, and compared with our JSON. ONNX Runtime has one thread everywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.load import h2, usage
from tests.load.floors import in_process
from tests.load.meanwhile import meanwhile
from tests.load.measuring import measure
from tests.load.peer_processes import OTHERS, OURS, Peer, PeerProcess
from tests.load.report import Report
from tests.load.targets import Target
from tests.mnist_files import small_digits
from tests.pictures import Pixels

IN_FLIGHT = (1, 32)
STARTS = 3
CHECKED = 64  # images, asked about in turn
CHECK_EVERY_S = 0.1
# How many times as much CPU as ours a call of theirs should cost.
AIMED_AT = {
    ("MLServer", "digitserve native"): 8.0,
    ("MLServer", "digitserve grpcio"): 2.0,
    ("PyTriton", "digitserve native"): 4.0,
}
# Of the answers' mean size: what was under way at the end counts in part.
SIZE_TOLERANCE = 0.02


def main() -> None:
    """Measure all, print a table with ratios, and write it as JSON and as a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="of the others, those that begin so")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for peers.json and peers.png")
    options = parser.parse_args()
    if not h2.is_installed():
        sys.exit("make bench-peers needs h2load, which is in the package nghttp2-client of Debian and Ubuntu")
    others = [peer for peer in OTHERS if not options.only or peer.name.startswith(tuple(options.only))]
    report = Report()
    for environment in dict.fromkeys(peer.environment for peer in others):
        with report.row(f"installing {environment}"):
            next(peer for peer in others if peer.environment == environment).bin()
    bench = PeerBench(options.seconds, report)
    for peer in (*OURS, *others):
        with report.row(peer.name):
            bench.measure(peer)
    bench.compare()
    for path in report.write(options.out, "peers"):
        print(f"wrote {path}")


class PeerBench:
    """The same measurements for each."""

    def __init__(self, seconds: float, report: Report):
        """Take a core for the servers and one for the load, this process; the same where there is only one.

        Args:
            seconds: Of each load.
            report: Where the figures go.
        """
        cores = sorted(os.sched_getaffinity(0))
        self._server_cpu, self._load_cpu = cores[0], cores[-1]
        os.sched_setaffinity(0, {self._load_cpu})
        self._seconds, self._report = seconds, report
        self._images: Pixels = small_digits("t10k")[0][:CHECKED]
        session = in_process()
        self._expected: list[npt.NDArray[np.float32]] = [
            session.run(["probabilities"], {"image": image[None, None]})[0][0] for image in self._images
        ]
        self._cpu_us: dict[str, float] = {}

    def measure(self, peer: Peer) -> None:
        """Start-up, calls one at a time and many, and memory after them."""
        starts = []
        for _ in range(STARTS - 1):
            with self._start(peer) as server:
                starts.append(server.start_s)
        with self._start(peer) as server:
            starts.append(server.start_s)
            with self._checked(server):
                for in_flight in IN_FLIGHT:
                    name = f"{peer.name}, {in_flight} in flight"
                    ask = peer.speaks(self._images[0])
                    done = measure(
                        *(server.pid, server.address, ask),
                        in_flight=in_flight,
                        seconds=self._seconds,
                        cpu=self._load_cpu,
                    )
                    size = server.check(self._images[0], self._expected[0])
                    # h2load sees HTTP only, where a gRPC call that fails is a success, but one without a message.
                    if ask.content_type == h2.GRPC and abs(done.load.answer_bytes - size) > SIZE_TOLERANCE * size:
                        raise RuntimeError(f"answers have {done.load.answer_bytes:.1f} bytes, a right one {size}")
                    self._report.calls(name, done.load, done.cpu_us)
                    if in_flight == IN_FLIGHT[-1]:
                        self._cpu_us[peer.name] = done.cpu_us
            memory, processes = usage.resident_mb(server.pid), len(usage.tree(server.pid))
        note = f"{processes} process{'es' * (processes > 1)}{f'; {peer.setting}' if peer.setting else ''}"
        self._report.add("memory", f"{peer.name}, resident memory after it", memory, "MB", note)
        self._report.add("start", f"{peer.name}, start to first right answer", statistics.median(starts), "s")

    def compare(self) -> None:
        """How many times as much CPU as we a call of the others costs, with 32 in flight."""
        ours = {peer.name for peer in OURS}
        for name, cpu_us in self._cpu_us.items():
            if name in ours:
                continue
            for mine in ("digitserve JSON",) if "JSON" in name else ("digitserve native", "digitserve grpcio"):
                if mine in self._cpu_us:
                    target = Target(f"{name}, CPU a call over {mine}", "x", least=AIMED_AT.get((name, mine)))
                    value = cpu_us / self._cpu_us[mine]
                    self._report.add("ratio", target.name, value, target.unit, target.verdict(value))

    def _start(self, peer: Peer) -> PeerProcess:
        return PeerProcess(peer, self._images[0], self._expected[0], str(self._server_cpu))

    def _checked(self, server: PeerProcess) -> contextlib.AbstractContextManager[None]:
        """Meanwhile, ask about other images now and then, all of which must be answered rightly."""
        others = itertools.cycle(range(CHECKED))

        def check() -> None:
            at = next(others)
            server.check(self._images[at], self._expected[at])

        return meanwhile(check, every_s=CHECK_EVERY_S)


if __name__ == "__main__":
    main()
