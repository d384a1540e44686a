"""The port for operators: `/metrics`, `/livez` and `/readyz`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web


def operations_app(
    exposition: Callable[[], Awaitable[bytes]], content_type: str, is_ready: Callable[[], bool]
) -> web.Application:
    """`/metrics`, `/livez` (the event loop turns) and `/readyz` (calls are welcome).

    Args:
        exposition: Gives all series in Prometheus' text format.
        content_type: Of that format.
        is_ready: Whether calls are welcome.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await exposition(), headers={"Content-Type": content_type})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if is_ready() else web.Response(status=503, text="not ready\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app
