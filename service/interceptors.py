"""Around every call: count and time it, and turn errors into statuses.

Handlers raise `service.errors`; what reaches the caller is decided here and
nowhere else. An error that is not one of ours is a fault of ours: the caller
gets an opaque id, the log gets the traceback under that id.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import grpc

from service.errors import CallError, InvalidRequest

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]

UNARY, BIDI_STREAM = "unary", "bidi_stream"


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
    """

    def __init__(self, observer: Observer, *, max_message_bytes: int):
        """Prepare.

        Args:
            observer: Told of every call's start and end.
            max_message_bytes: Larger unary requests are refused. The transport's
                own limit has to be higher: its error cannot name the setting.
        """
        self._observer = observer
        self._max_message_bytes = max_message_bytes
        self._in_progress = 0
        self.idle = asyncio.Event()
        self.idle.set()

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
                self._wrap(handler.unary_unary, UNARY, service, method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if inspect.iscoroutinefunction(handler.stream_stream):
            return grpc.stream_stream_rpc_method_handler(
                self._wrap(handler.stream_stream, BIDI_STREAM, service, method),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        # Left are reflection and Health.Watch, which last as long as their callers.
        return handler

    def _wrap(self, handle: Any, kind: str, service: str, method: str) -> Any:
        async def call(request: Any, context: Context) -> Any:
            with self._in_progress_now(), _Timer(self._observer, kind, service, method) as timer:
                try:
                    if kind is UNARY:
                        self._check_size(request)
                    response = await handle(request, context)
                except Exception as error:
                    await _abort(context, timer, error)
                timer.code = "OK"
                return response

        return call

    @contextlib.contextmanager
    def _in_progress_now(self) -> Iterator[None]:
        self._in_progress += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._in_progress -= 1
            if not self._in_progress:
                self.idle.set()

    def _check_size(self, request: Any) -> None:
        size = request.ByteSize()
        if size > self._max_message_bytes:
            raise InvalidRequest(
                f"the request message has {size} bytes, the limit is {self._max_message_bytes} (--max-message-bytes)"
            )


class _Timer:
    """Reports one call's start and, whatever happens, its end."""

    def __init__(self, observer: Observer, kind: str, service: str, method: str):
        self.code = "CANCELLED"
        self._observer = observer
        self._call = kind, service, method

    def __enter__(self) -> _Timer:
        self._observer.call_started(*self._call)
        self._began = time.monotonic()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._observer.call_ended(*self._call, self.code, time.monotonic() - self._began)


async def _abort(context: Context, timer: _Timer, error: Exception) -> NoReturn:
    """End the call with the status of an error."""
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        await _abort(context, timer, error.exceptions[0])
    if isinstance(error, grpc.aio.AbortError):
        # Only gRPC's own health service aborts by itself: for a service it does not know.
        timer.code = "NOT_FOUND"
        raise error
    if isinstance(error, CallError):
        timer.code = error.status
        await context.abort(grpc.StatusCode[error.status], str(error))
    fault = secrets.token_hex(8)
    timer.code = "INTERNAL"
    log.error("fault %s", fault, exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL, f"the server failed on this call; its log knows more under id {fault}"
    )
