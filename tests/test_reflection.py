"""Clients that know nothing but the address: list, describe and call by reflection."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.pictures import Pixels
from tests.server_process import ServerProcess


def describe(channel: grpc.Channel, service: str, method: str) -> tuple[Any, grpc.UnaryUnaryMultiCallable]:  # type: ignore[type-arg]
    """The class of a method's request, and the method."""
    found = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(service)
    described = found.methods_by_name[method]
    request: Any = GetMessageClass(described.input_type)
    call = channel.unary_unary(
        f"/{service}/{method}",
        request_serializer=request.SerializeToString,
        response_deserializer=GetMessageClass(described.output_type).FromString,
    )
    return request, call


def test_every_service_is_listed(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        assert set(ProtoReflectionDescriptorDatabase(channel).get_services()) == {
            "digits.v1.DigitClassifier",
            "inference.GRPCInferenceService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }


def test_our_service_can_be_described_and_called(server: ServerProcess, digits: tuple[Pixels, Pixels]) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        request, call = describe(channel, "digits.v1.DigitClassifier", "Classify")
        response: Any = call(request(format=2, image=digits[0][0].tobytes()))
        assert response.prediction.digit == digits[1][0]


@pytest.mark.parametrize("model", ["digits", "digits_image"])
def test_the_open_inference_protocol_can_be_described_and_called(server: ServerProcess, model: str) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        request, call = describe(channel, "inference.GRPCInferenceService", "ModelMetadata")
        response: Any = call(request(name=model))
        assert (response.name, list(response.versions)) == (model, ["1"])
