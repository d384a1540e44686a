"""Good, bad, cancelled and reloading calls for minutes: does anything grow?

    python -m tests.robustness.soak --seconds 600
    python -m tests.robustness.soak --seconds 60 --leaking    # must fail: the server keeps every message

In the last half, memory may grow by 1 MB a minute (as a line through its measurements); file descriptors and threads
must not. Prints what it saw; exits with 1 if something grew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from protos import grpc_service_pb2 as oip
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.answering import answering, put
from tests.conftest import REPOSITORY
from tests.pictures import encode
from tests.robustness.goodcaller import BLANK
from tests.robustness.processes import descriptors, resident_bytes, threads
from tests.server_process import COMMAND, ServerProcess

MB_A_MINUTE = 1.0
# However long they take: a line through two measurements says nothing.
LEAST_ROUNDS = 10
# A program that starts the server with a leak.
LEAKING = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.robustness.leaking_server import main
main()
"""


def main() -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--megabytes", type=float, default=MB_A_MINUTE, help="a minute that memory may grow by")
    parser.add_argument("--transport", default="grpcio")
    parser.add_argument("--leaking", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        put(models, 1, answering(1))
        flags = ("--models-dir", folder, "--model-control", "explicit", "--transport", arguments.transport)
        command = COMMAND
        if arguments.leaking:
            command = models / "leaking"
            command.write_text(LEAKING)
            command.chmod(0o755)
        with ServerProcess(*flags, command=command) as server:
            channel = grpc.insecure_channel(server.grpc_address)
            grown = soak(server, channel, models, arguments.seconds, arguments.megabytes)
            _, errors = server.stop()
        # Not before: while its server lived, a channel was twice seen to wait forever for a call that was cancelled.
        channel.close()
    grown += [f"an error nobody handled: {line}" for line in errors.splitlines() if "never retrieved" in line]
    print("\n".join(grown) or "nothing grew")
    return 1 if grown else 0


def soak(server: ServerProcess, channel: grpc.Channel, models: Path, seconds: float, most: float) -> list[str]:
    """Call for so long, with so many MB a minute allowed; what has grown, in words."""
    pid, began = server.process.pid, time.monotonic()
    seen: list[tuple[float, int, int, int]] = []
    digits = digits_pb2_grpc.DigitClassifierStub(channel)
    control = GRPCInferenceServiceStub(channel)
    round_number = 0
    while (elapsed := time.monotonic() - began) < seconds or round_number < LEAST_ROUNDS:
        one_round(digits, control, models, round_number)
        round_number += 1
        seen.append((elapsed / 60, resident_bytes(pid), descriptors(pid), threads(pid)))
    half = np.array(seen[len(seen) // 2 :], float)
    slope = float(np.polyfit(half[:, 0], half[:, 1] / 1e6, 1)[0])
    print(
        f"{round_number} rounds of 210 calls in {seconds:.0f} s: memory {seen[0][1] / 1e6:.1f} -> "
        f"{seen[-1][1] / 1e6:.1f} MB, in the last half {slope:+.2f} MB a minute; descriptors {seen[len(seen) // 2][2]} "
        f"-> {seen[-1][2]}, threads {seen[len(seen) // 2][3]} -> {seen[-1][3]}"
    )
    grown = []
    if slope > most:
        grown.append(f"memory grows by {slope:.2f} MB a minute, at most {most:g} is allowed")
    for name, column in (("descriptors", 2), ("threads", 3)):
        quarter = len(half) // 2 or 1
        # Pools of threads fill up late on a slow machine; a leak would be far above that in ten minutes.
        if np.median(half[-quarter:, column]) > np.median(half[:quarter, column]) + 8:
            grown.append(f"{name} grow")
    return grown


def one_round(
    digits: digits_pb2_grpc.DigitClassifierStub, control: GRPCInferenceServiceStub, models: Path, number: int
) -> None:
    """Some calls of each kind."""
    picture = encode(np.random.default_rng(number).integers(0, 256, (40, 40), np.uint8))
    calls = [digits.Classify.future(BLANK, timeout=20) for _ in range(100)]
    calls += [digits.Classify.future(pb.ClassifyRequest(image=picture), timeout=20) for _ in range(40)]
    calls += [digits.Classify.future(pb.ClassifyRequest(image=picture[:50]), timeout=20) for _ in range(40)]
    cancelled = [digits.Classify.future(BLANK, timeout=20) for _ in range(20)]
    for call in cancelled:
        call.cancel()
    for call in calls:
        call.exception()
    item = pb.ClassifyStreamRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
    stream = digits.ClassifyStream(iter([item] * 10), timeout=20)
    if number % 2:
        next(stream)
        stream.cancel()
    else:
        list(stream)
    if number % 20 == 0:
        put(models, 1, answering(number // 20 % 10))
        control.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits"), timeout=60)


if __name__ == "__main__":
    sys.exit(main())
