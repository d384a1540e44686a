"""HTTP connections that speak the one error format even where no request could be made of what arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

# What is done with a request that aiohttp refuses by itself: its status in, the answer out.
Refuse = Callable[[int, BaseException | None], web.Response]


class Runner(web.AppRunner):
    """Runs an application; what aiohttp refuses before the application sees it is refused by a function of ours."""

    def __init__(self, app: web.Application, refuse: Refuse, *, shutdown_timeout: float):
        """Prepare.

        Args:
            app: Answers requests.
            refuse: Answers what is none.
            shutdown_timeout: Seconds that requests in progress get at the end.
        """
        # A handler whose caller has gone is cancelled, and its image never run.
        super().__init__(app, access_log=None, shutdown_timeout=shutdown_timeout, handler_cancellation=True)
        self._refuse = refuse

    @property
    def server(self) -> web.Server | None:
        """What makes the connections."""
        server = super().server
        # Sites only call it.
        return server and (lambda: _Connection(server, self._refuse))  # type: ignore[return-value]


class _Connection(web.RequestHandler):
    """Of one caller."""

    __slots__ = ("_refuse",)

    def __init__(self, server: web.Server, refuse: Refuse):
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]
        self._refuse = refuse

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; what aiohttp raised before the application was asked, in our format."""
        if isinstance(resp, web.HTTPException):
            resp = self._refuse(resp.status, None)
        return await super().finish_response(request, resp, start_time)

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
