"""What no server could beat on this machine, measured beside it: the model alone, and gRPC that does nothing.

`python -m tests.load.floors grpcio` is the server that does nothing, `native` the same on the other transport; it
prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module

import grpc
import numpy as np
import onnxruntime
import uvloop

from protos import digits_pb2 as pb
from service.settings import bundled_models
from tests.pictures import Pixels

RUN_IMAGES = 32
ANSWER = pb.ClassifyResponse(
    prediction=pb.Prediction(digit=7, confidence=0.99, probabilities=[0.1] * 10),
    model_version="1",
    timing=pb.Timing(queue_seconds=0.001, model_seconds=0.001),
)


def in_process() -> onnxruntime.InferenceSession:
    """The released model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = str(bundled_models() / "digits/1/model.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def in_process_cpu_us(images: Pixels, seconds: float) -> float:
    """ONNX Runtime on one thread, runs of 32, without any server; CPU microseconds an image, the median of the runs.

    Args:
        images: uint8 [N, 28, 28], N at least 32.
        seconds: How long to measure.
    """
    session = in_process()
    batch = np.ascontiguousarray(images[:RUN_IMAGES, None])
    taken = median_seconds(lambda: session.run(None, {"image": batch}), seconds, time.process_time)
    return taken / RUN_IMAGES * 1e6


def median_seconds(work: Callable[[], object], seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that work takes by a clock, the median over repetitions, the first one aside."""
    work()
    taken, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = clock()
        work()
        taken.append(clock() - began)
    return float(np.median(taken))


@contextlib.contextmanager
def empty_server(cpu: int, transport: str = "grpcio") -> Iterator[tuple[int, str]]:
    """The server that does nothing, on one core: its process and its address."""
    command = ["taskset", "-c", str(cpu), sys.executable, "-m", "tests.load.floors", transport]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as echo:
        assert echo.stdout is not None
        try:
            yield echo.pid, f"127.0.0.1:{int(echo.stdout.readline())}"
        finally:
            echo.kill()


async def echo(transport: str) -> None:
    """A server that answers Classify with the same bytes, until it is killed."""
    server: grpc.aio.Server = import_module("pygrpc_native.aio" if transport == "native" else "grpc.aio").server()
    answer = ANSWER.SerializeToString()

    async def classify(request: bytes, context: object) -> bytes:
        return answer

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(classify)
    server.add_registered_method_handlers("digits.v1.DigitClassifier", {"Classify": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    sys.exit(asyncio.Runner(loop_factory=uvloop.new_event_loop).run(echo(sys.argv[1])))
