"""Rows of many images a call, of who else asks meanwhile, and of how cost grows with batch and picture."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from service.client import Client, Prediction
from tests.load import asks, h2
from tests.load.floors import median_seconds
from tests.load.meanwhile import meanwhile
from tests.load.measuring import SLICES, Bench, in_turns
from tests.pictures import encode, on_paper
from tests.server_process import ServerProcess

# Two calls, so that the server need not wait for the client.
IN_FLIGHT = 2
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Of pictures, in pixels; the last is the largest square that the server takes unless it is told otherwise.
SIDES = (28, 64, 128, 256, 512, 1024, 2048, 4000)
GROWTH_SHARE = 0.25  # of the seconds of a row, for a point of a curve


def many_images(bench: Bench, server: ServerProcess, transport: str) -> None:
    """Many images a call."""
    image = bench.images[0]
    for name, ask in (
        ("ClassifyBatch, 64 raw images", asks.batch(image, 64)),
        ("ClassifyBatch, 512 raw images", asks.batch(image, 512)),
        ("ModelInfer, 512 images", asks.infer(image, 512)),
        ("ClassifyStream, raw images", asks.stream(image, 512)),
    ):
        with bench.report.row(f"{transport}: {name}"):
            # In one piece: of such calls, those that are cut off at the end would count.
            ((done, alone_us),) = in_turns(
                partial(bench.alone_us, bench.seconds / SLICES),
                partial(bench.measure, server, ask, IN_FLIGHT),
                slices=1,
            )
            cpu_us, rate = done.cpu_us / ask.images, done.rate * ask.images
            note = f"{cpu_us:.1f} us CPU an image"
            bench.report.add("many images", f"{transport}: {name}", rate, "images/s", note, cpu_us=cpu_us)
            bench.report.add("comparison", f"{transport}: {name}, of in process", 100 * alone_us / cpu_us, "%", "CPU")


def batch_sizes(bench: Bench, server: ServerProcess, transport: str) -> None:
    """How the cost of an image falls with the size of its batch."""
    image = bench.images[0]
    with bench.report.row("ONNX Runtime in process"):
        bench.report.floor("batch", "ONNX Runtime in process, runs of 32", bench.alone_us())
    for name, make in (("ClassifyBatch", asks.batch), ("ModelInfer", asks.infer)):
        for size in BATCH_SIZES:
            with bench.report.row(f"{transport}: {name} of {size}"):
                # Of large ones, those that are cut off at the end would count.
                seconds = bench.seconds * GROWTH_SHARE * (1 if size < 256 else 2)
                done = bench.measure(server, make(image, size), IN_FLIGHT, seconds=seconds)
                bench.report.point("batch", f"{transport}, {name}", size, done.cpu_us / size)


def picture_sizes(bench: Bench, server: ServerProcess, transport: str) -> None:
    """How the cost of a call grows with the picture in it: a digit on paper, in colour."""
    seconds = bench.seconds * GROWTH_SHARE
    with bench.report.row(f"{transport}: raw image"):
        done = bench.measure(server, asks.raw(bench.images[0]), 1, seconds=seconds)
        bench.report.floor("picture", "raw image, nothing to read", done.cpu_us / 1000)
    page = on_paper(bench.images[0], margin=30).convert("RGB")
    for name in ("PNG", "JPEG"):
        for side in SIDES:
            with bench.report.row(f"{transport}: {name} of {side} x {side}"):
                done = bench.measure(server, asks.file(encode(page.resize((side, side)), name)), 1, seconds=seconds)
                bench.report.point("picture", name, side, done.cpu_us / 1000)


def neighbours(bench: Bench, server: ServerProcess, transport: str) -> None:
    """How long a lone caller waits beside one that asks for much without pause."""
    image, batch = bench.images[0], asks.batch(bench.images[0], 512)
    with Client(server.grpc_address, timeout_s=60) as lone, Client(server.grpc_address, timeout_s=60) as other:

        def check(prediction: Prediction) -> None:
            if prediction.digit != bench.digit:
                raise RuntimeError(
                    f"the server read a {bench.digit} as a {prediction.digit}: what it does is no figure"
                )

        def waits() -> float:
            return median_seconds(lambda: check(lone.classify(image)), bench.seconds)

        def send_batches(clients: int) -> Callable[[], None]:
            """Without pause: one client has the next on its way; of four, two each are more than the queue takes."""

            def send() -> None:
                with contextlib.suppress(h2.NothingAnswered):
                    h2.closed_loop(
                        *(server.grpc_address, batch.path, batch.body),
                        in_flight=max(IN_FLIGHT, clients),
                        connections=clients,
                        seconds=2,
                        cpu=bench.load_cpu,
                    )

            return send

        with bench.report.row(f"{transport}: lone caller"):
            alone = waits()
            bench.report.add("fairness", f"{transport}: lone caller, Python client", alone * 1000, "ms")
            for name, load in (
                ("batches of 512", send_batches(1)),
                ("512s of 4 clients", send_batches(4)),
                ("explanations", lambda: other.explain(image)),
            ):
                with bench.report.row(f"{transport}: the same beside {name}"), meanwhile(load):
                    beside = waits()
                    note = f"{beside / alone:.1f} x"
                    bench.report.add("fairness", f"{transport}: the same beside {name}", beside * 1000, "ms", note)
