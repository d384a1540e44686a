"""Messages of callers, or what is wrong with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from service.errors import CallError, InvalidRequest
from service.over_grpc import wire

if TYPE_CHECKING:
    # Generic in the stubs only.
    Context = grpc.aio.ServicerContext[Any, Any]

# Requests up to this weigh nothing: the queue of images is their limit.
LIGHT_BYTES = 1 << 16


def reader(parse: Callable[[bytes], Any], max_message_bytes: int) -> Callable[[bytes], Any]:
    """A deserializer that returns what is wrong with a message: gRPC would tell the caller the name of a class.

    Args:
        parse: Makes a message of bytes; that of a class of messages, whose fields are then known.
        max_message_bytes: Larger ones are wrong.
    """
    # Of a method of another class, there is none.
    message = getattr(getattr(parse, "__self__", None), "DESCRIPTOR", None)
    within = wire.inside(message) if message else wire.NOTHING

    def read(data: bytes) -> Any:
        if len(data) > max_message_bytes:
            return InvalidRequest(
                f"the request message has {len(data)} bytes, the limit is {max_message_bytes} (--max-message-bytes)"
            )
        if len(data) > LIGHT_BYTES and wire.has_too_many_fields(data, within=within):
            return InvalidRequest(f"the request message has more than {wire.MOST_FIELDS} fields; no call takes as many")
        try:
            return parse(data)
        except DecodeError:
            return InvalidRequest(f"the {len(data)} bytes of the request are no message of the type this call takes")

    return read


def readable_request(handle: Any) -> Any:
    """A handler that writes its answers, of a request that can be read."""

    async def call(request: Any, context: Context) -> None:
        if isinstance(request, CallError):
            await context.abort(grpc.StatusCode[request.status], str(request))
        await handle(request, context)

    return call


def readable_requests(handle: Any) -> Any:
    """A handler that yields its answers, of requests that can be read."""

    async def call(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async def readable() -> AsyncIterator[Any]:
            async for request in requests:
                if isinstance(request, CallError):
                    await context.abort(grpc.StatusCode[request.status], str(request))
                yield request

        async for answer in handle(readable(), context):
            yield answer

    return call
