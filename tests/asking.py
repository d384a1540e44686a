"""A server of the models in a folder, in this process, and questions to it over gRPC."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.processes.ports import Running
from service.server import running
from service.settings import Settings


class Asker:
    """Asks a server over gRPC."""

    def __init__(self, server: Running, channel: grpc.aio.Channel):
        self.server = server
        self.stub = GRPCInferenceServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    async def infer(self, version: str = "", images: int = 1) -> tuple[str, int]:
        """The version that answered, and the digit it read."""
        tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[images, 1, 28, 28])
        request = pb.ModelInferRequest(
            model_name="digits", model_version=version, inputs=[tensor], raw_input_contents=[bytes(784 * images)]
        )
        response = await self.stub.ModelInfer(request)
        probabilities = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(images, 10)
        (digit,) = set(probabilities.argmax(1).tolist())
        return response.model_version, digit

    async def load(self) -> None:
        await self.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="digits"))

    async def failed_load(self) -> tuple[str, str]:
        """Code and text of a load that has to fail."""
        return await self.code(self.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="digits")))

    async def healthy(self, *services: str) -> list[bool]:
        """What health says of each service; "" is the server as a whole."""
        stub: Any = self.health
        requests = [health_pb2.HealthCheckRequest(service=service) for service in services]
        return [(await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING for request in requests]

    def shows(self, line: str) -> bool:
        """Whether /metrics has a text; blocks."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.ops_port}/metrics", timeout=10) as response:
            return line in response.read().decode()

    async def states(self) -> list[tuple[str, str]]:
        index = await self.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        return [(each.version, each.state) for each in index.models if each.name == "digits"]

    async def code(self, call: grpc.aio.UnaryUnaryCall) -> tuple[str, str]:  # type: ignore[type-arg]
        """Code and text of a call that has to fail."""
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        return error.value.code().name, error.value.details() or ""


@contextlib.asynccontextmanager
async def serving(models: Path, **others: object) -> AsyncIterator[Asker]:
    """A server of the models in a folder."""
    ports = {"grpc_port": 0, "http_port": 0, "ops_port": 0}
    settings = Settings(models_dir=models, **{**ports, "model_control": "explicit", **others})  # type: ignore[arg-type]
    async with (
        running(settings) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        yield Asker(server, channel)
