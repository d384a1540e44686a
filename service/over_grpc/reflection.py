"""gRPC server reflection over messages that live in several descriptor pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc


def add_reflection(server: grpc.aio.Server, files: Sequence[Any]) -> None:
    """Let callers ask which services there are and what their messages look like.

    Args:
        server: Gets the reflection service.
        files: Descriptors of files that hold the services to tell of. They may be in different
            pools, of which reflection takes only one.
    """
    pool = DescriptorPool()
    added: set[str] = set()

    def add(file: Any) -> None:
        if file.name not in added:
            added.add(file.name)
            for dependency in file.dependencies:
                add(dependency)
            pool.AddSerializedFile(file.serialized_pb)

    for file in files:
        add(file)
    names = [service.full_name for file in files for service in file.services_by_name.values()]
    servicer = reflection.aio.ReflectionServicer((*names, reflection.SERVICE_NAME), pool=pool)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
