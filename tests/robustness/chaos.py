"""Attacks on a running server and faults around it, each for some seconds, with a caller beside it that behaves.

    python -m tests.robustness.chaos --seconds 6 --transport native

Prints for each what the good caller saw and what memory the server took; exits with 1 if that caller had an error or
was refused by a server that was not full, or something promised did not hold. `measure_images` does the same for image
files.
"""

from __future__ import annotations

import argparse
import os
import sys

import grpc

from protos import digits_pb2_grpc
from tests.robustness import half_open
from tests.robustness.attacks import ATTACKS, FILLING
from tests.robustness.beside import HEADING, Row, beside
from tests.robustness.faults import FAULTS
from tests.robustness.goodcaller import BLANK
from tests.server_process import ServerProcess

HALF_OPEN = "T4 half-open peer"


def main() -> int:
    """Do harm; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6, help="of each attack")
    parser.add_argument("--transport", default="grpcio")
    parser.add_argument("--only", default="", help="what has this in its name")
    arguments = parser.parse_args()
    transport, seconds, only = arguments.transport, arguments.seconds, arguments.only
    failed = False

    def tell(name: str, row: Row) -> None:
        nonlocal failed
        print(row.line(name), flush=True)
        failed = failed or bool(row.faults)

    print(HEADING)
    # The server has a core of its own, where there are two: else the good caller waits for the attacker, not for it.
    all_cores = os.sched_getaffinity(0)
    first, *others = sorted(all_cores)
    os.sched_setaffinity(0, others or all_cores)
    with ServerProcess("--transport", transport, cpus=str(first)) as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            for _ in range(200):
                digits_pb2_grpc.DigitClassifierStub(channel).Classify(BLANK)
        for name, attack in ATTACKS.items():
            if only in name:
                tell(name, beside(server, attack, seconds, may_refuse=attack in FILLING))
    os.sched_setaffinity(0, all_cores)
    for name, fault in FAULTS.items():
        if only in name:
            tell(name, fault(seconds, transport))
    if only in HALF_OPEN:
        code, seen = half_open.run(transport)
        print(f"{HALF_OPEN:22} {seen}")
        failed = failed or code not in (0, half_open.NOT_PERMITTED)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
