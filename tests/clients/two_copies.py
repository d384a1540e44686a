"""Our generated code and tritonclient's in one process, in either order."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

OURS, THEIRS = "protos.grpc_service_pb2_grpc", "tritonclient.grpc"


def check_both_orders(target: Any) -> None:
    for first, second in ((OURS, THEIRS), (THEIRS, OURS)):
        code = f"import importlib; [importlib.import_module(name) for name in ({first!r}, {second!r})]"
        subprocess.run([sys.executable, "-c", code], check=True)


def check_every_field_has_their_number(target: Any) -> None:
    """Everything in our copy of the protocol is in theirs, with the same number and type."""
    from tritonclient.grpc import model_config_pb2, service_pb2

    from protos import grpc_service_pb2 as ours

    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}

    def compare(mine: Any, other: Any) -> None:
        for field in mine.fields:
            twin = other.fields_by_name[field.name]
            assert (field.number, field.type) == (twin.number, twin.type), field.full_name
            assert field.is_repeated == twin.is_repeated, field.full_name
        for nested in mine.nested_types:
            compare(nested, other.nested_types_by_name[nested.name])
        for enum in mine.enum_types:
            same_values(enum, other.enum_types_by_name[enum.name])

    def same_values(mine: Any, other: Any) -> None:
        for value in mine.values:
            assert other.values_by_name[value.name].number == value.number, value.name

    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        compare(message, theirs[name])
    same_values(ours.DataType.DESCRIPTOR, model_config_pb2.DataType.DESCRIPTOR)
    methods = ours.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    twins = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert methods.keys() == twins.keys()
    for name, method in methods.items():
        twin = twins[name]
        assert (method.input_type.full_name, method.output_type.full_name) == (
            twin.input_type.full_name,
            twin.output_type.full_name,
        )
        assert (method.client_streaming, method.server_streaming) == (twin.client_streaming, twin.server_streaming)
