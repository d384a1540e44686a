"""Bytes nobody would send, into what reads bytes: each target in a process with limits of memory and time.

    python -m tests.robustness.fuzz --seconds 60

`make fuzz` has atheris choose the bytes; where it is not installed, they are mutations of good files and messages.
A target fails by any error that is not one of ours, a signal, or an input that takes more than a second or raises the
peak of memory by more than 64 MiB: in minutes, atheris itself takes more. What fails is left in a file, whose name is
printed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import DecodeError
from PIL import Image

from protos import digits_pb2
from protos import grpc_service_pb2 as oip
from service.errors import CallError, ModelUnusable
from service.model.manifest import Manifest
from service.open_inference import tensors
from service.open_inference.doors import FILES_DOOR, PIXELS_DOOR
from service.open_inference.outputs import wanted
from service.over_grpc.reading import reader
from service.over_grpc.wire import has_too_many_fields, inside
from service.pictures.images import FORMATS, ImageReader
from service.settings import Settings
from tests.robustness.bombs import saved

MOST_SECONDS = 1.0
MOST_BYTES = 64 << 20
# As calls have them.
INFERENCE_READER, *READERS = (
    reader(kind.FromString, Settings().max_message_bytes)
    for kind in (
        oip.ModelInferRequest,
        digits_pb2.ClassifyRequest,
        digits_pb2.ClassifyBatchRequest,
        digits_pb2.ExplainRequest,
    )
)
READER = ImageReader(Settings().max_image_bytes, 1_000_000)


def images(data: bytes) -> None:
    """An image file."""
    READER.read(data)


def messages(data: bytes) -> None:
    """A request, as it comes from the wire, up to where pixels are handed to the model."""
    has_too_many_fields(data)
    for read in READERS:
        read(data)
    tensor_requests(data)


def tensor_requests(data: bytes) -> None:
    """A request of the Open Inference Protocol."""
    # Readers do not count the fields of requests as small as these.
    has_too_many_fields(data, within=inside(oip.ModelInferRequest.DESCRIPTOR))
    request = INFERENCE_READER(data)
    if isinstance(request, CallError):
        raise request
    for door, read in ((PIXELS_DOOR, tensors.read_pixels), (FILES_DOOR, tensors.read_files)):
        with contextlib.suppress(CallError):
            wanted(request, door)
        with contextlib.suppress(CallError):
            read(request, 32)


def manifests(data: bytes) -> None:
    """The manifest of a model."""
    path = Path(f"/dev/shm/fuzzed-{Path('/proc/self').resolve().name}.json")
    try:
        path.write_bytes(data)
        Manifest.read(path)
    finally:
        path.unlink()


def _tensor_request() -> bytes:
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 1, 28, 28])
    request = oip.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=[bytes(784)])
    return request.SerializeToString()


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "images": (images, lambda: [saved(Image.radial_gradient("L").resize((40, 40)), format) for format in FORMATS]),
    "messages": (messages, lambda: [digits_pb2.ClassifyRequest(image=bytes(9)).SerializeToString()]),
    "tensors": (tensor_requests, lambda: [_tensor_request()]),
    "manifests": (manifests, lambda: [Path("models/digits/1/manifest.json").read_bytes()[:4000], b'{"sha256": "x"}']),
}


class Checked:
    """A target that fails for what it must not do."""

    def __init__(self, name: str):
        self._name = name
        self._target = TARGETS[name][0]
        self._base = self._peak = _peak()
        self.slowest, self.inputs = 0.0, 0

    def __call__(self, data: bytes) -> None:
        """Try one input."""
        began, before = time.monotonic(), self._peak
        try:
            self._target(data)
        except (CallError, DecodeError, ModelUnusable):
            pass
        except BaseException:
            self._fail(data, "an error that is not ours")
            raise
        seconds = time.monotonic() - began
        self.inputs += 1
        self.slowest = max(self.slowest, seconds)
        if seconds > MOST_SECONDS:
            self._fail(data, f"{seconds:.2f} s")
        self._peak = _peak()
        if (more := self._peak - before) > MOST_BYTES:
            self._fail(data, f"{more >> 20} MiB")

    def report(self) -> str:
        """What was seen."""
        return (
            f"{self._name}: {self.inputs} inputs, slowest {self.slowest * 1e3:.1f} ms, "
            f"memory +{(self._peak - self._base) / 1e6:.1f} MB"
        )

    def _fail(self, data: bytes, why: str) -> None:
        path = Path(f"failed-{self._name}.bin")
        path.write_bytes(data)
        raise SystemExit(f"{self._name}: {why}, by {path}")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A file with some bytes changed, left out, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(changed) or 1)
        kind = chance.randrange(5)
        if kind == 0 and changed:
            changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif kind == 1:
            del changed[at : at + chance.randrange(1, 9)]
        elif kind == 2:
            changed[at:at] = changed[at : at + chance.randrange(1, 64)]
        elif kind == 3:
            changed[at : at + 4] = chance.randbytes(4)
        else:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
    return bytes(changed[: chance.randrange(len(changed) + 1)] if chance.random() < 0.1 else changed)


def one(name: str, seconds: float, seed: int) -> None:
    """Fuzz a target in this process."""
    resource.setrlimit(resource.RLIMIT_CPU, (round(seconds) + 120, round(seconds) + 120))
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seeds = TARGETS[name][1]()
    checked = Checked(name)
    if importlib.util.find_spec("atheris"):
        _with_atheris(checked, seeds, seconds)
    chance, until = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < until:
        checked(mutated(chance.choice(seeds), chance))
    print(checked.report())


def _with_atheris(checked: Checked, seeds: list[bytes], seconds: float) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    until = float("inf")

    def check(data: bytes) -> None:
        nonlocal until
        checked(data)
        if time.monotonic() > until:
            # libFuzzer leaves without calling anybody.
            until = float("inf")
            print(checked.report(), flush=True)

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        flags = [f"-max_total_time={round(seconds) + 1}", "-max_len=65536", "-rss_limit_mb=0", "-verbosity=0"]
        atheris.Setup(["fuzz", *flags, corpus], check)
        until = time.monotonic() + seconds
        atheris.Fuzz()


def main() -> int:
    """Fuzz every target for its part of the time; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--target", choices=TARGETS)
    arguments = parser.parse_args()
    if arguments.target:
        one(arguments.target, arguments.seconds, arguments.seed)
        return 0
    print(f"seed {arguments.seed}")
    failed = 0
    for name in TARGETS:
        command = [sys.executable, "-m", "tests.robustness.fuzz", "--target", name, "--seed", str(arguments.seed)]
        done = subprocess.run([*command, "--seconds", str(arguments.seconds / len(TARGETS))], check=False)
        if done.returncode:
            failed += 1
            print(f"{name}: ended with {done.returncode}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
