"""What waits for the model in the Open Inference Protocol: who goes first, and who leaves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.runs.judging import Floats, Images
from service.server import running
from tests.test_server import free_ports, replace_model, until_metrics_show


@dataclass
class Held:
    """A server whose first run waits.

    Attributes:
        stub: Calls it.
        ops_port: Of its metrics.
        first: The call that is in that run.
        let_go: Set it to end the run.
        seen: The first pixel of each run's first image.
    """

    stub: Any
    ops_port: int
    first: asyncio.Future[pb.ModelInferResponse]
    let_go: threading.Event
    seen: list[int]


def request(pixel: int, priority: int = 0) -> pb.ModelInferRequest:
    """One image of pixels that are all the same."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 1, 28, 28])
    parameters = {"priority": pb.InferParameter(uint64_param=priority)}
    return pb.ModelInferRequest(
        model_name="digits", inputs=[tensor], raw_input_contents=[bytes([pixel]) * 784], parameters=parameters
    )


@contextlib.asynccontextmanager
async def held(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Held]:
    """A server that runs one image at a time and is in its first run, of the pixel 1."""
    entered, let_go, seen = threading.Event(), threading.Event(), []

    def run(images: Images) -> tuple[Floats, Floats]:
        entered.set()
        let_go.wait(60)
        seen.append(int(images[0, 0, 0, 0]))
        return np.full((len(images), 10), 0.1, np.float32), np.ones(len(images), np.float32)

    replace_model(monkeypatch, run)
    async with (
        running(free_ports(max_run_images=1)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        stub: Any = GRPCInferenceServiceStub(channel)
        first = asyncio.ensure_future(stub.ModelInfer(request(1)))
        await asyncio.to_thread(entered.wait, 10)
        try:
            yield Held(stub, server.ops_port, first, let_go, seen)
        finally:
            let_go.set()


async def test_the_parameter_priority_orders_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    async with held(monkeypatch) as server:
        waiting = []
        for pixel, priority in ((2, 3), (3, 0), (4, 1), (5, 2), (6, 1), (7, 2**64 - 1)):
            waiting.append(asyncio.ensure_future(server.stub.ModelInfer(request(pixel, priority))))
            await until_metrics_show(server.ops_port, f"digitserve_queue_images {len(waiting)}.0")
        server.let_go.set()
        await asyncio.gather(server.first, *waiting)
        assert server.seen == [1, 4, 6, 3, 5, 7, 2]


async def test_whoever_leaves_counts_as_failed_and_never_reaches_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    async with held(monkeypatch) as server:
        leaving = asyncio.ensure_future(server.stub.ModelInfer(request(2)))
        await until_metrics_show(server.ops_port, "digitserve_queue_images 1.0")
        leaving.cancel()
        await until_metrics_show(server.ops_port, "digitserve_queue_images 0.0")
        server.let_go.set()
        await server.first
        answer = await server.stub.ModelStatistics(pb.ModelStatisticsRequest(name="digits"))
        (found,) = answer.model_stats
        assert (found.inference_stats.success.count, found.inference_stats.fail.count) == (1, 1)
        assert server.seen == [1]
