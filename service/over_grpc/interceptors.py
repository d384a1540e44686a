"""Around every call: count and time it, and turn errors into statuses.

Handlers raise `service.errors`; what reaches the caller is decided here and
nowhere else. An error that is not one of ours is a fault of ours: the caller
gets an opaque id, the log gets the traceback under that id.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import grpc

from service.errors import CallError, NotReady, QueueFull, log_fault, without_frames
from service.observing.request_log import RequestLog
from service.over_grpc.answers import Answers
from service.over_grpc.bodies import Bodies
from service.over_grpc.reading import LIGHT_BYTES, readable_request, readable_requests, reader
from service.runs.turns import CALLER

if TYPE_CHECKING:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]

UNARY, BIDI_STREAM = "unary", "bidi_stream"
# What gRPC's clients take, in milliseconds, for the time to their next attempt (gRFC A6).
PUSHBACK = ("grpc-retry-pushback-ms", "100")
HEALTH = "grpc.health.v1.Health"
# The peer of every stream that the native transport hands to a server behind it: then each stream is a caller.
ANONYMOUS = "unix:"


class MethodObserver(Protocol):
    """Whoever counts the calls of one method."""

    def started(self) -> None:
        """A call arrived."""

    def ended(self, code: str, seconds: float) -> None:
        """A call ended with the status named `code`."""


class Observer(Protocol):
    """Whoever counts calls."""

    def calls_of(self, kind: str, service: str, method: str) -> MethodObserver:
        """Who is to be told of the calls of a method; `kind` is "unary" or "bidi_stream"."""


class CallInterceptor:
    """Wraps the unary and the bidirectional calls of a server.

    They are wrapped once, when they are added: gRPC's own interceptors are asked
    anew for every call, which costs more than all that is done around it.

    Attributes:
        answers: Those on their way.
        idle: Set while none of them is in progress.
        draining: Set it to have new calls refused; health checks are still answered.
    """

    def __init__(
        self,
        observer: Observer,
        log: RequestLog | None,
        around: Callable[[str, Any], Any] | None = None,
        *,
        max_message_bytes: int,
        max_queue_bytes: int = 1 << 40,
        pushes_back: bool = False,
        holds_back: bool = False,
    ):
        """Prepare.

        Args:
            observer: Told of every call's start and end.
            log: Gets a line for the calls it picks, health checks excepted; None for no lines.
            around: Makes of a method's path and handler the handler to call, health checks excepted.
            max_message_bytes: Larger requests are refused. The transport's
                own limit has to be higher: its error cannot name the setting.
            max_queue_bytes: Of the heavy requests in progress; more are refused.
            pushes_back: Whether refused callers are told when to try again, which
                the native transport cannot: it never answers such a call.
            holds_back: Whether callers wait with what they send while much is here, and those who do not
                take answers are hung up on; which the native transport cannot: it reads and sends by itself.
        """
        self._max_queue_bytes = max_queue_bytes
        self._bodies = Bodies()
        self.answers = Answers()
        self._holds_back = holds_back
        self._pushback = (PUSHBACK,) if pushes_back else ()
        self._observer = observer
        self._log = log
        self._around = around
        self._max_message_bytes = max_message_bytes
        self._in_progress = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.draining = asyncio.Event()

    def before(self, server: grpc.aio.Server) -> grpc.aio.Server:
        """What services are to be added to in the place of a server, so that it gets their calls wrapped."""
        # Generated code calls the two methods it has, and no others.
        return cast(grpc.aio.Server, _Wrapping(server, self.wrap, self._bodies if self._holds_back else None))

    def wrap(self, service: str, method: str, handler: Handler) -> Handler:
        """The handler of a method with what happens around every call; unknown methods stay gRPC's business."""
        if handler.unary_unary:
            serialize = cast(Any, handler.response_serializer)
            return grpc.unary_unary_rpc_method_handler(
                self._counted(handler.unary_unary, UNARY, service, method),
                request_deserializer=self._reader(handler.request_deserializer, weighs=True),
                # Only of a call that waits for its answer to be sent can it be known when it is.
                response_serializer=self.answers.counted(serialize) if self._holds_back else serialize,
            )
        if inspect.iscoroutinefunction(handler.stream_stream):
            return grpc.stream_stream_rpc_method_handler(
                # Messages that cannot be read reach the handler as errors: a bad one need not end a stream.
                self._counted(handler.stream_stream, BIDI_STREAM, service, method),
                request_deserializer=self._reader(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        # Left are reflection and Health.Watch. They last as long as their callers, so that they count for nothing.
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                readable_request(handler.unary_stream),
                request_deserializer=self._reader(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        return grpc.stream_stream_rpc_method_handler(
            readable_requests(handler.stream_stream),
            request_deserializer=self._reader(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _reader(self, parse: Any, weighs: bool = False) -> Callable[[bytes], Any]:
        """A deserializer that returns what is wrong with a message, and counts large ones."""
        counts = weighs and self._holds_back
        read_light = reader(parse, self._max_message_bytes)

        def read(data: bytes) -> Any:
            if counts:
                self._bodies.arrived()
            if weighs and len(data) > LIGHT_BYTES:
                if self._bodies.bytes + len(data) > self._max_queue_bytes:
                    return QueueFull.of_bytes(self._bodies.bytes, len(data), self._max_queue_bytes)
                return _Heavy(read_light(data), len(data))
            return read_light(data)

        return read

    def _counted(self, handle: Any, kind: str, service: str, method: str) -> Any:
        """What happens around every call of a method."""
        observer = self._observer.calls_of(kind, service, method)
        is_health = service == HEALTH
        log, path = None if is_health else self._log, f"/{service}/{method}"
        if self._around and not is_health:
            handle = self._around(path, handle)

        async def call(request: Any, context: Context) -> Any:
            began, code, text = time.monotonic(), "CANCELLED", ""
            peer = context.peer()
            CALLER.set(f"{peer}{id(context)}" if peer == ANONYMOUS else peer)
            self._in_progress += 1
            self.idle.clear()
            observer.started()
            heavy = 0
            if type(request) is _Heavy:
                request, heavy = request.message, request.bytes
                self._bodies.hold(heavy)
            try:
                if self.draining.is_set() and not is_health:
                    raise NotReady("the server is shutting down; another one may answer")
                if isinstance(request, CallError):
                    raise request
                answer = await handle(request, context)
                self.answers.check(answer)
                code = "OK"
                return answer
            except grpc.aio.AbortError:
                # Only gRPC's own health service aborts by itself: for a service it does not know.
                code = "NOT_FOUND"
                raise
            except Exception as error:
                code, text = _status(error)
                trailing = self._pushback if isinstance(error, QueueFull) else ()
                without_frames(error)
            finally:
                if heavy:
                    self._bodies.let_go(heavy)
                # gRPC cancels the handler when the caller leaves and when its deadline passes, without saying which.
                if code == "CANCELLED" and _is_over(context):
                    code = "DEADLINE_EXCEEDED"
                seconds = time.monotonic() - began
                observer.ended(code, seconds)
                if log is not None and log.picks():
                    headers = context.invocation_metadata() or ()
                    log.answered(path, code, seconds, peer=context.peer(), headers=headers, error=text)
                self._in_progress -= 1
                if not self._in_progress:
                    self.idle.set()
            # gRPC keeps what the call is aborted with, and that keeps what is named here.
            request = answer = None
            # Whoever has an answer finds it counted.
            return await context.abort(grpc.StatusCode[code], text, trailing)

        return call


@dataclass(frozen=True, slots=True)
class _Heavy:
    """A message that counts, and what it weighs."""

    message: Any
    bytes: int


class _Wrapping:
    def __init__(self, server: grpc.aio.Server, wrap: Callable[[str, str, Handler], Handler], bodies: Bodies | None):
        self._server = server
        self._wrap = wrap
        self._bodies = bodies

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: the same calls are added once more, by their names."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        wrapped = {method: self._wrap(service, method, handler) for method, handler in handlers.items()}
        if self._bodies and service != HEALTH:
            # Of handlers that are registered, gRPC asks for none.
            self._server.add_generic_rpc_handlers((self._bodies.handlers(service, wrapped),))
            return
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))
        self._server.add_registered_method_handlers(service, wrapped)


def _is_over(context: Context) -> bool:
    remaining = context.time_remaining()
    return remaining is not None and remaining <= 0


def _status(error: Exception) -> tuple[str, str]:
    """The name of the status, and the text, that an error ends a call with."""
    # Answers of a stream that failed at the same time.
    if isinstance(error, ExceptionGroup) and not error.split(CallError)[1]:
        return _status(error.exceptions[0])
    if isinstance(error, CallError):
        return error.status, str(error)
    return "INTERNAL", log_fault(error)
