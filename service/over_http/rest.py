"""The Open Inference Protocol over REST: addresses and bodies; what the calls answer is in `inference`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from protos import grpc_service_pb2 as pb
from service.errors import InvalidRequest
from service.open_inference.inference import Inference
from service.over_http.http_bodies import Bodies
from service.over_http.rest_tensors import plain, read_object, read_request, write_response

JSON_BYTES = "Inference-Header-Content-Length"
# Reading numbers from more JSON than this, or writing more numbers than this, would keep the other callers waiting.
LARGE_BYTES = 64 * 1024
# What is said of models, which is read where all callers are answered.
SMALL_BYTES = 4 * 1024


def add_routes(app: web.Application, inference: Inference, bodies: Bodies, max_message_bytes: int) -> None:
    """Let an application answer everything below `/v2`; `bodies` reads what it is asked."""
    rest = _Rest(inference, bodies, max_message_bytes)
    app.router.add_get("/v2", rest.server)
    app.router.add_get("/v2/health/live", rest.live)
    app.router.add_get("/v2/health/ready", rest.ready)
    app.router.add_get("/v2/models/stats", rest.statistics)
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        app.router.add_get(path, rest.metadata)
        app.router.add_get(f"{path}/ready", rest.model_ready)
        app.router.add_get(f"{path}/config", rest.config)
        app.router.add_get(f"{path}/stats", rest.statistics)
        app.router.add_post(f"{path}/infer", rest.infer)
    app.router.add_post("/v2/repository/index", rest.index)
    app.router.add_post("/v2/repository/models/{model}/load", rest.load)
    app.router.add_post("/v2/repository/models/{model}/unload", rest.unload)


class _Rest:
    """The handlers."""

    def __init__(self, inference: Inference, bodies: Bodies, max_message_bytes: int):
        self._inference = inference
        self._bodies = bodies
        self._max_message_bytes = max_message_bytes

    async def server(self, request: web.Request) -> web.Response:
        return web.json_response(plain(self._inference.server_metadata()))

    async def live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def ready(self, request: web.Request) -> web.Response:
        ready = self._inference.server_ready()
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def metadata(self, request: web.Request) -> web.Response:
        return web.json_response(plain(self._inference.model_metadata(*_model(request))))

    async def model_ready(self, request: web.Request) -> web.Response:
        name, version = _model(request)
        self._inference.check_model(name, version)
        return web.json_response({"name": name, "ready": True})

    async def config(self, request: web.Request) -> web.Response:
        return web.json_response(plain(self._inference.model_config(*_model(request)).config))

    async def statistics(self, request: web.Request) -> web.Response:
        return web.json_response(plain(await self._inference.model_statistics(*_model(request))))

    async def index(self, request: web.Request) -> web.Response:
        only_ready = (await self._said(request)).get("ready")
        if not isinstance(only_ready, bool | None):
            raise InvalidRequest("'ready' is neither true nor false")
        index = await self._inference.repository_index(bool(only_ready))
        return web.json_response([plain(each) for each in index.models])

    async def load(self, request: web.Request) -> web.Response:
        message = pb.RepositoryModelLoadRequest(model_name=_model(request)[0])
        if (await self._said(request)).get("parameters"):
            message.parameters["given"].SetInParent()
        await self._inference.load(message)
        return web.json_response({})

    async def unload(self, request: web.Request) -> web.Response:
        await self._said(request)
        await self._inference.unload(pb.RepositoryModelUnloadRequest(model_name=_model(request)[0]))
        return web.json_response({})

    async def infer(self, request: web.Request) -> web.Response:
        most = self._max_message_bytes
        too_large = f"the body has more bytes than the limit of {most} (--max-message-bytes)"
        async with self._bodies.read(request, most, too_large) as body:
            message, binary = await _run(len(body), read_request, body, _json_bytes(request), *_model(request))
            response = await self._inference.infer(message, None)
        answer, json_bytes = await _run(response.ByteSize(), write_response, response, binary)
        if json_bytes is None:
            return web.Response(body=answer, content_type="application/json")
        headers = {JSON_BYTES: str(json_bytes)}
        return web.Response(body=answer, content_type="application/octet-stream", headers=headers)

    async def _said(self, request: web.Request) -> dict[str, Any]:
        """The small object that is the body of a request about models; empty where there is none."""
        too_large = f"the body has more than the {SMALL_BYTES} bytes that this address takes"
        async with self._bodies.read(request, SMALL_BYTES, too_large) as body:
            return read_object(body) if body else {}


async def _run(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; where it has much to do, in a thread, so that other callers go on."""
    return await asyncio.to_thread(function, *arguments) if size > LARGE_BYTES else function(*arguments)


def _model(request: web.Request) -> tuple[str, str]:
    """Name and version in the address; empty where it has none."""
    return request.match_info.get("model", ""), request.match_info.get("version", "")


def _json_bytes(request: web.Request) -> int | None:
    text = request.headers.get(JSON_BYTES)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidRequest(f"{JSON_BYTES} is {text[:40]!r}; expected a whole number")
    return int(text)
