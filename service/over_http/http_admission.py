"""Which requests are answered: probes, and those with what the server wants of its callers; and no other site's.

A page of another site can have its visitor's browser send a picture to this
server, or unload its model; that page could not read the answer, but it would
be done. Browsers say where a request comes from, and nobody else has to: by
Sec-Fetch-Site where the connection is safe or local, and by Origin everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from service.security import Security, Tokens

PROBES = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
# What changes nothing, and costs nothing to speak of.
HARMLESS = {"GET", "HEAD", "OPTIONS"}
OTHER_SITE = "a page of another site asks for this; only this server's own page and programs are answered"


def guard(app: web.Application, security: Security, turned_away: Callable[[], None]) -> None:
    """Let an application answer only those who may ask; call it before the application is used.

    Args:
        app: An address that is added to it tomorrow is guarded without a word about it.
        security: What is wanted of callers.
        turned_away: Called for everyone who is refused.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in HARMLESS and _is_other_sites(request):
            turned_away()
            return web.json_response({"error": OTHER_SITE, "code": "PERMISSION_DENIED"}, status=403)
        # By the route and not by the text of the address, which can be spelt in many ways.
        resource = request.match_info.route.resource
        problem = None if resource and resource.canonical in PROBES else _problem(request, security)
        if problem is None:
            return await handler(request)
        turned_away()
        answer = {"error": problem, "code": "UNAUTHENTICATED"}
        return web.json_response(answer, status=401, headers={"WWW-Authenticate": "Bearer"})

    # Inside of what counts requests, and around all that reads them.
    app.middlewares.append(guarded)


def _is_other_sites(request: web.Request) -> bool:
    """Whether a browser sends a request because a page of another site had it do so."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and origin.partition("://")[2] != request.host


def _problem(request: web.Request, security: Security) -> str | None:
    """Why a request is not answered."""
    certificates, tokens = security.certificates, security.tokens
    if certificates and certificates.callers_show_theirs:
        # Where probes come in, the handshake asks for a certificate and takes none for an answer.
        shown = request.transport and request.transport.get_extra_info("peercert")
        if not shown:
            return "a client certificate is needed"
    if tokens and not any(map(tokens.admit, request.headers.getall("Authorization", ()))):
        return Tokens.WANTED
    return None
