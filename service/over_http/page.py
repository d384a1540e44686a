"""The page on which people draw: files that lie in `page/`, served with headers that let it load nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from service.model.versions import Versions

FOLDER = Path(__file__).with_name("page")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
HEADERS = {
    # Scripts, styles and answers come from this server, pictures also from the visitor; everything else is off.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A new release is seen at once, and what has not changed is not sent again.
    "Cache-Control": "no-cache",
}


def add_routes(app: web.Application, versions: Versions, server_version: str, max_image_bytes: int) -> None:
    """Let an application show the page at `/`, and what belongs to it below `/page`.

    Args:
        app: Answers what the page asks, at `/v1/classify` and `/v1/explain`.
        versions: Of the model that the page names.
        server_version: What the page shows.
        max_image_bytes: Larger files are made smaller before the page sends them.
    """

    async def about(_: web.Request) -> web.Response:
        model = versions.find().model
        facts = {
            "server_version": server_version,
            "name": model.name,
            "version": model.version,
            "network": model.network,
            "accuracy": model.accuracy,
            "tested_on": model.tested_on,
            "providers": model.providers_got,
            "max_image_bytes": max_image_bytes,
        }
        return web.json_response(facts, headers=HEADERS)

    app.router.add_get("/page/about.json", about)
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in CONTENT_TYPES:
            address = "/" if path.name == "index.html" else f"/page/{path.name}"
            app.router.add_get(address, _sender(path))
    for path in sorted(EXAMPLES.glob("*.png")):
        app.router.add_get(f"/page/examples/{path.name}", _sender(path))


def _sender(path: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that sends a file, read once."""
    body = path.read_bytes()
    tag = hashlib.sha256(body).hexdigest()[:32]
    headers = {**HEADERS, "ETag": f'"{tag}"', "Content-Type": CONTENT_TYPES[path.suffix]}

    async def send(request: web.Request) -> web.Response:
        if any(known.value == tag for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)

    return send
