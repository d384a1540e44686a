"""HTTP connections: how many a port has, how long they may say nothing, and one error format for what is no request.

aiohttp has a limit for none of it but a connection that was kept and is idle: an hour, longer than proxies keep theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

# What is done with a request that aiohttp refuses by itself: its status in, the answer out.
Refuse = Callable[[int, BaseException | None], web.Response]

# Seconds in which a new connection must ask something, and in which what begins a request must be followed by its rest.
REQUEST_S = 10.0
# Seconds in which an answer must be taken.
ANSWER_S = 60.0


class Runner(web.AppRunner):
    """Runs an application; what aiohttp refuses before the application sees it is refused by a function of ours."""

    def __init__(self, app: web.Application, refuse: Refuse, *, max_connections: int, shutdown_timeout: float):
        """Prepare.

        Args:
            app: Answers requests.
            refuse: Answers what is none.
            max_connections: At a time. Whoever asks nothing makes room for the next one; if nobody does, it is closed.
            shutdown_timeout: Seconds that requests in progress get at the end.
        """
        # A handler whose caller has gone is cancelled, and its image never run.
        super().__init__(app, access_log=None, shutdown_timeout=shutdown_timeout, handler_cancellation=True)
        self._refuse = refuse
        self._open = _Open(max_connections)

    @property
    def server(self) -> web.Server | None:
        """What makes the connections."""
        server = super().server
        # Sites only call it.
        return server and (lambda: _Connection(server, self._refuse, self._open))  # type: ignore[return-value]


class _Open:
    """The connections of a port, those first that have been silent longest."""

    def __init__(self, most: int):
        self._most = most
        self._connections: dict[_Connection, None] = {}

    def enter(self, connection: _Connection) -> None:
        self._connections[connection] = None
        if len(self._connections) > self._most:
            # The new one is silent itself.
            silent = next(each for each in self._connections if each.is_silent)
            self.leave(silent)
            silent.drop()

    def was_answered(self, connection: _Connection) -> None:
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    def leave(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)


class _Connection(web.RequestHandler):
    """Of one caller."""

    __slots__ = ("_answers", "_late", "_open", "_refuse")

    def __init__(self, server: web.Server, refuse: Refuse, all_open: _Open):
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]
        self._refuse = refuse
        self._open = all_open
        self._answers = 0
        self._late: asyncio.TimerHandle | None = None

    @property
    def is_silent(self) -> bool:
        """Whether no request is in progress."""
        return self._request_count == self._answers

    def drop(self) -> None:
        """Close it, without waiting for anybody to take what is still to be sent."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        super().connection_made(transport)
        self._late = self._loop.call_later(REQUEST_S, self.drop)
        self._open.enter(self)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; the beginning of a request is not waited with for ever."""
        super().data_received(data)
        if not self.is_silent:
            self._be_patient()
        elif self._late is None:
            self._late = self._loop.call_later(REQUEST_S, self.drop)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._be_patient()
        self._open.leave(self)
        super().connection_lost(exc)

    def _be_patient(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; what aiohttp raised before the application was asked, in our format."""
        if isinstance(resp, web.HTTPException):
            resp = self._refuse(resp.status, None)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.drop()
            return resp, True
        finally:
            self._answers += 1
            self._open.was_answered(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer in our format; aiohttp would repeat what arrived, and log a traceback of it."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; an error can no longer be sent")
        response = self._refuse(status, exc)
        response.force_close()
        return response
