"""grpcio-health-checking's client: Check and Watch."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING


def check_and_watch(target: Any) -> None:
    with grpc.insecure_channel(target.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "digits.v1.DigitClassifier", "inference.GRPCInferenceService"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert stub.Check(request).status == SERVING
            watching = stub.Watch(request)
            assert next(watching).status == SERVING
            watching.cancel()
        try:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
        else:
            raise AssertionError("an unknown service was answered")
