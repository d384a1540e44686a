"""pygrpc-native's server, with what it lacks when more calls come than can be answered.

By itself it hands over to the event loop whatever has arrived, a task for each: at three times the capacity the model
waited for its turn between thousands that were about to be refused. Here, a pass of the loop begins a few calls, as
many wait as may, and the rest is refused before anything is made of it, health checks excepted.

This overrides a method that is nobody's business, of the one version that the requirements admit;
`tests/test_native.py` holds it to what is said here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pygrpc_native.aio
from pygrpc_native._native import EVENT_CANCEL

HEALTH = "/grpc.health.v1.Health/"
# Calls begun in one pass of the event loop, as many as a run of the model takes.
AT_ONCE = 32
# Kind of the event, number of the call, number of its method, and more.
Event = tuple[Any, ...]


class NativeServer(pygrpc_native.aio.Server):
    """A server that keeps up."""

    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        options: Sequence[tuple[str, int]],
        *,
        max_waiting: int,
        on_refused: Callable[[str], object],
    ):
        """Prepare.

        Args:
            interceptors: As for `grpc.aio.server`.
            options: Likewise.
            max_waiting: Calls that have arrived and not begun; more are refused.
            on_refused: Told the path of each.
        """
        super().__init__(interceptors=interceptors, options=options)
        self._max_waiting = max_waiting
        self._on_refused = on_refused
        self._waiting: deque[Event] = deque()
        self._is_passing = False
        code, _ = grpc.StatusCode.RESOURCE_EXHAUSTED.value
        self._refusal = (
            code,
            f"{max_waiting} calls are waiting, more than that would exceed the limit (--max-queue-images); "
            "try again a little later",
        )

    def _on_events(self, events: list[Event]) -> None:
        """What has arrived; in a pass of the event loop this may be called again and again."""
        for event in events:
            kind, call_id, method_id = event[:3]
            path = "" if kind == EVENT_CANCEL else self._table[method_id][0]
            if path.startswith(HEALTH):
                self._begin([event])
            elif path and len(self._waiting) >= self._max_waiting and self._front:
                self._front.fail(call_id, *self._refusal)
                self._on_refused(path)
            else:
                self._waiting.append(event)
        if not self._is_passing:
            self._pass()

    def _pass(self) -> None:
        """Begin some of those that wait, and more in the next pass."""
        self._is_passing = bool(self._waiting)
        if self._waiting:
            self._begin([self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))])
            asyncio.get_running_loop().call_soon(self._pass)

    def _begin(self, events: list[Event]) -> None:
        super()._on_events(events)
        for kind, call_id, *_ in events:
            # Whoever left before the task of the call ran at all would never be forgotten.
            if kind == EVENT_CANCEL:
                self._calls.pop(call_id, None)

    async def _run_unary(self, call: Any, context: Any, request: Any) -> None:
        """As the original does; but it finds out at every call that the handler is a coroutine, as all of ours are."""
        try:
            response = await call.handler.unary_unary(request, context)
        except Exception as error:
            self._failed(call, context, error)
            return
        if (data := self._encode(call, context, response)) is not None and self._front:
            self._front.respond(call.call_id, data)
