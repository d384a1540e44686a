"""`make bench`: start-up, memory and speed of the installed server on this machine, as figures and ratios.

Nothing here passes or fails. The server and this client share the machine's
cores, so absolute figures say little about another one; the ratio to ONNX
Runtime alone, measured in the same minute, says more.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import onnxruntime

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.client import Client
from service.settings import bundled_models
from tests.mnist_files import small_digits
from tests.pictures import Pixels, encode
from tests.server_process import ServerProcess

SECONDS_EACH = 3.0
STARTS = 5
BATCH = 512


def main() -> None:
    """Measure everything and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--server", type=Path, required=True, help="the digitserve command to measure")
    command = parser.parse_args().server
    images = small_digits("t10k")[0]

    row(f"start to first right answer, median of {STARTS}", start_seconds(command, images), "s", 3)
    with ServerProcess(command=command) as server, Client(server.grpc_address) as client:
        client.classify(images[0])
        row("resident memory after start and one answer", memory_mb(server), "MB", 1)
        session = alone_session()
        alone = rate(lambda: session.run(None, {"image": images[:32, None]}), 32)
        row("ONNX Runtime in process, runs of 32", alone, "images/s")
        batch = list(np.resize(images, (BATCH, 28, 28)))
        for name, work in (
            (f"ClassifyBatch, {BATCH} raw images a call", lambda: client.classify_batch(batch)),
            ("ClassifyStream, raw images", lambda: list(client.classify_stream(batch))),
        ):
            images_per_second = rate(work, BATCH)
            row(name, images_per_second, f"images/s   {images_per_second / alone:.2f} x in process")
        raw = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=images[0].tobytes())
        file = pb.ClassifyRequest(image=encode(images[0]))
        for name, request in (("raw image", raw), ("PNG file", file)):
            for callers in (1, 32):
                seconds = asyncio.run(unary(server, request, callers))
                p50, p99 = np.percentile(seconds, [50, 99]) * 1000
                unit = f"calls/s    p50 {p50:.2f} ms, p99 {p99:.2f} ms"
                row(f"Classify, one {name}, callers: {callers}", len(seconds) / SECONDS_EACH, unit)
        row("resident memory at the end", memory_mb(server), "MB", 1)


def row(name: str, value: float, unit: str, digits: int = 0) -> None:
    """Print one line of the table."""
    print(f"{name:48} {value:10,.{digits}f} {unit}", flush=True)


def start_seconds(command: Path, images: Pixels) -> float:
    """From starting the process to an answer, in seconds."""
    taken = []
    for _ in range(STARTS):
        began = time.perf_counter()
        with ServerProcess(command=command) as server, Client(server.grpc_address) as client:
            client.classify(images[0])
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def memory_mb(server: ServerProcess) -> float:
    """Resident memory of the server, in 10^6 bytes."""
    return server.metric("process_resident_memory_bytes") / 1e6


def alone_session() -> onnxruntime.InferenceSession:
    """The released model on one thread, without a server."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(bundled_models() / "digits/1/model.onnx"), options)


def rate(work: Callable[[], object], images: int) -> float:
    """Images a second of repeated work on this many images, median over the repetitions."""
    work()
    taken, end = [], time.perf_counter() + SECONDS_EACH
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return images / statistics.median(taken)


async def unary(server: ServerProcess, request: pb.ClassifyRequest, callers: int) -> list[float]:
    """Seconds of each call, with this many callers that ask again as soon as they are answered."""
    taken: list[float] = []
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        await stub.Classify(request)
        end = time.perf_counter() + SECONDS_EACH

        async def ask() -> None:
            while (began := time.perf_counter()) < end:
                await stub.Classify(request)
                taken.append(time.perf_counter() - began)

        await asyncio.gather(*(ask() for _ in range(callers)))
    return taken


if __name__ == "__main__":
    main()
