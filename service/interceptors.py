"""Around every call: count and time it, and turn errors into statuses.

Handlers raise `service.errors`; what reaches the caller is decided here and
nowhere else. An error that is not one of ours is a fault of ours: the caller
gets an opaque id, the log gets the traceback under that id.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from service.errors import CallError, InvalidRequest, NotReady, log_fault

if TYPE_CHECKING:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]

UNARY, BIDI_STREAM = "unary", "bidi_stream"
HEALTH = "grpc.health.v1.Health"


class Observer(Protocol):
    """Whoever counts calls."""

    def call_started(self, kind: str, service: str, method: str) -> None:
        """A call arrived; `kind` is "unary" or "bidi_stream"."""

    def call_ended(self, kind: str, service: str, method: str, code: str, seconds: float) -> None:
        """A call ended with the status named `code`."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the unary and the bidirectional calls of the server.

    Attributes:
        idle: Set while none of them is in progress.
        draining: Set it to have new calls refused; health checks are still answered.
    """

    def __init__(self, observer: Observer, *, max_message_bytes: int):
        """Prepare.

        Args:
            observer: Told of every call's start and end.
            max_message_bytes: Larger requests are refused. The transport's
                own limit has to be higher: its error cannot name the setting.
        """
        self._observer = observer
        self._max_message_bytes = max_message_bytes
        self._in_progress = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.draining = asyncio.Event()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Give the handler of a call, wrapped; unknown methods stay gRPC's business."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        _, service, method = handler_call_details.method.split("/")
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary, service, method),
                request_deserializer=self._reader(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        if inspect.iscoroutinefunction(handler.stream_stream):
            return grpc.stream_stream_rpc_method_handler(
                self._stream(handler.stream_stream, service, method),
                request_deserializer=self._reader(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        # Left are reflection and Health.Watch, which last as long as their callers.
        return handler

    def _reader(self, parse: Any) -> Callable[[bytes], Any]:
        """A deserializer that returns what is wrong with a message: gRPC would tell the caller the name of a class."""

        def read(data: bytes) -> Any:
            if len(data) > self._max_message_bytes:
                return InvalidRequest(
                    f"the request message has {len(data)} bytes, the limit is {self._max_message_bytes} "
                    "(--max-message-bytes)"
                )
            try:
                return parse(data)
            except DecodeError:
                return InvalidRequest(
                    f"the {len(data)} bytes of the request are no message of the type this call takes"
                )

        return read

    def _unary(self, handle: Any, service: str, method: str) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with self._around(context, UNARY, service, method):
                if isinstance(request, CallError):
                    raise request
                return await handle(request, context)

        return call

    def _stream(self, handle: Any, service: str, method: str) -> Any:
        # Requests that cannot be read reach the handler as errors: one bad message need not end a stream.
        async def call(requests: AsyncIterator[Any], context: Context) -> None:
            async with self._around(context, BIDI_STREAM, service, method):
                await handle(requests, context)

        return call

    @contextlib.asynccontextmanager
    async def _around(self, context: Context, kind: str, service: str, method: str) -> AsyncIterator[None]:
        """What happens around every call."""
        began, code = time.monotonic(), "CANCELLED"
        self._in_progress += 1
        self.idle.clear()
        self._observer.call_started(kind, service, method)
        try:
            try:
                if self.draining.is_set() and service != HEALTH:
                    raise NotReady("the server is shutting down; another one may answer")
                yield
                code = "OK"
            except grpc.aio.AbortError:
                # Only gRPC's own health service aborts by itself: for a service it does not know.
                code = "NOT_FOUND"
                raise
            except Exception as error:
                code, text = _status(error)
                await context.abort(grpc.StatusCode[code], text)
        finally:
            # gRPC cancels the handler when the caller leaves and when its deadline passes, without saying which.
            remaining = context.time_remaining()
            if code == "CANCELLED" and remaining is not None and remaining <= 0:
                code = "DEADLINE_EXCEEDED"
            self._observer.call_ended(kind, service, method, code, time.monotonic() - began)
            self._in_progress -= 1
            if not self._in_progress:
                self.idle.set()


def _status(error: Exception) -> tuple[str, str]:
    """The name of the status, and the text, that an error ends a call with."""
    # Answers of a stream that failed at the same time.
    if isinstance(error, ExceptionGroup) and not error.split(CallError)[1]:
        return _status(error.exceptions[0])
    if isinstance(error, CallError):
        return error.status, str(error)
    return "INTERNAL", log_fault(error)
