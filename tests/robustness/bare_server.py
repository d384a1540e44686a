"""A gRPC server with the options of ours and one call, which answers when a test lets it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from protos import digits_pb2 as pb
from service.over_grpc.grpcio_options import grpcio_options
from service.settings import Settings
from tests.listening import listening


class Answering:
    """Answers `Classify` when it is allowed to, and knows how many calls were cancelled."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def classify(self, request: object, context: object) -> pb.ClassifyResponse:
        self.began.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return pb.ClassifyResponse()


@contextlib.asynccontextmanager
async def serving(**changed: int) -> AsyncIterator[tuple[str, Answering]]:
    """A server with the options of ours, some of which have another value; its address."""
    options = dict(grpcio_options(Settings()))
    for name, value in changed.items():
        (option,) = [option for option in options if option.replace(".", "_").endswith(name)]
        options[option] = value
    server, answering = grpc.aio.server(options=list(options.items())), Answering()
    classify: grpc.RpcMethodHandler[pb.ClassifyRequest, pb.ClassifyResponse] = grpc.unary_unary_rpc_method_handler(
        answering.classify, pb.ClassifyRequest.FromString, pb.ClassifyResponse.SerializeToString
    )
    methods = grpc.method_handlers_generic_handler("digits.v1.DigitClassifier", {"Classify": classify})
    server.add_generic_rpc_handlers((methods,))
    async with listening(server) as address:
        yield address, answering
