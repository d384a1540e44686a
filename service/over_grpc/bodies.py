"""How much of what callers send is here at the same time; the rest is held back at their end.

gRPC reads the messages of all calls at once, and hands a unary call over when
its message is complete. While much is here, calls are therefore answered by
handlers that read for themselves, and wait before they do: of a call that
waits, no more than the window of its stream is in memory.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

import grpc

from service.errors import QueueFull
from service.runs.turns import Turns

if TYPE_CHECKING:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
    Task = asyncio.Task[Any] | None

MEGABYTE = 1 << 20
# Requests that are being read, and megabytes of large ones in progress, before further calls wait.
MOST_AT_ONCE = 16
# Requests that are read before calls wait whose callers have no other that had to. What is in progress does not count:
# small calls do not wait for the large ones of others.
MOST_OF_ALL = 32
# Calls that may wait. What is here of each is 64 kB at most.
MOST_WAITING = 1024
# A request that takes longer to arrive counts no more: callers who send slowly take nobody's place.
COUNTED_S = 1.0
LOOK_EVERY_S = 0.05


class Bodies:
    """The requests of unary calls that are being read, the large ones in progress, and the calls that wait.

    Attributes:
        bytes: Of the large requests in progress.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.bytes = 0
        # By the task of the call, with the time since which it is in the way of others, if it is.
        self._reading: dict[Task, float | None] = {}
        self._waiting: Turns[_Waiting] = Turns()
        # Of calls that read for themselves.
        self._callers: set[str] = set()
        self._looking: asyncio.TimerHandle | None = None

    def handlers(self, service: str, handlers: dict[str, Handler]) -> grpc.GenericRpcHandler:
        """What gRPC asks for the methods of a service, before it reads anything of a call."""
        return _Service(self, {f"/{service}/{method}": handler for method, handler in handlers.items()})

    def begin(self) -> bool:
        """Whether the request of this task's call may be read at once; then it counts until it has `arrived`."""
        # Written out, since every call comes by here.
        if len(self._reading) + self.bytes // MEGABYTE >= MOST_AT_ONCE:
            self._forget()
            if self._is_full():
                return False
        self._reading[asyncio.current_task()] = None
        return True

    def arrived(self) -> None:
        """The request of this task's call is complete."""
        self._reading.pop(asyncio.current_task(), None)
        if self._looking:
            self._look()

    def hold(self, size: int) -> None:
        """A large request of this many bytes is in progress."""
        self.bytes += size

    def let_go(self, size: int) -> None:
        """It is over."""
        self.bytes -= size
        self._look()

    def patient(self, handler: Handler) -> Handler:
        """A unary handler, made one that waits before it reads."""
        handle = cast(Any, handler.unary_unary)

        async def call(_: object, context: Context) -> Any:
            caller = context.peer()
            if not await self._wait(caller):
                text = f"{MOST_WAITING} calls wait to be read, the most that may; try again a little later"
                return await handle(QueueFull(text), context)
            is_first = caller not in self._callers
            self._callers.add(caller)
            try:
                # No name for the request: the handler lets go of it.
                return await handle(await _read(context), context)
            finally:
                if is_first:
                    self._callers.discard(caller)

        return grpc.stream_unary_rpc_method_handler(call, handler.request_deserializer, handler.response_serializer)

    async def _wait(self, caller: str) -> bool:
        """Wait until the request of this task's call may be read; False if too many do."""
        task = asyncio.current_task()
        if not self._is_full() or (caller not in self._callers and len(self._reading) < MOST_OF_ALL):
            self._reading[task] = None
            return True
        if len(self._waiting) >= MOST_WAITING:
            return False
        waiting = _Waiting(caller, task)
        self._waiting.add(waiting)
        self._look()
        try:
            await waiting.turn
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return True

    def _is_full(self) -> bool:
        return len(self._reading) + self.bytes // MEGABYTE >= MOST_AT_ONCE

    def _forget(self) -> None:
        """Count those no more that ended unread or take too long."""
        now = time.monotonic()
        for task, since in [*self._reading.items()]:
            if (task and task.done()) or (since is not None and now - since > COUNTED_S):
                del self._reading[task]
            elif since is None:
                self._reading[task] = now

    def _look(self) -> None:
        """Have as many go on as there is room for, now and later."""
        while self._waiting and not self._is_full():
            waiting = self._waiting.pop()
            if not waiting.turn.done():
                self._reading[waiting.task] = None
                waiting.turn.set_result(None)
        if self._waiting and not self._looking:
            self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look_again)

    def _look_again(self) -> None:
        self._looking = None
        self._forget()
        self._look()


class _Waiting:
    def __init__(self, caller: str, task: Task):
        self.caller = caller
        self.task = task
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Service(grpc.GenericRpcHandler):
    def __init__(self, bodies: Bodies, handlers: dict[str, Handler]):
        self._bodies = bodies
        self._handlers = handlers
        unary = {path: each for path, each in handlers.items() if each.unary_unary}
        self._at_once = {path: _reading(each) for path, each in unary.items()}
        self._patient = {path: bodies.patient(each) for path, each in unary.items()}

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        path: str = details.method
        if path not in self._patient:
            return self._handlers.get(path)
        return self._at_once[path] if self._bodies.begin() else self._patient[path]


def _reading(handler: Handler) -> Handler:
    """A unary handler, made one that reads for itself: gRPC would keep what it has read until the answer is sent."""
    handle = cast(Any, handler.unary_unary)

    async def call(_: object, context: Context) -> Any:
        return await handle(await _read(context), context)

    return grpc.stream_unary_rpc_method_handler(call, handler.request_deserializer, handler.response_serializer)


async def _read(context: Context) -> Any:
    if (request := await context.read()) is grpc.aio.EOF:
        # Whoever called has left.
        raise asyncio.CancelledError
    return request
