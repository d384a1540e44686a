"""The public HTTP port: pictures, and the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from service.classifier import Classifier, Format, Prediction
from service.errors import CallError, InvalidImage, InvalidRequest, log_fault, without_frames
from service.explanation import explain_json
from service.explanation.explaining import Explainer
from service.observing.request_log import RequestLog
from service.open_inference.inference import Inference
from service.over_http import rest
from service.over_http.http_bodies import Bodies, TooLarge, TooSlow
from service.over_http.http_connections import Refuse
from service.runs.turns import CALLER

# The HTTP counterparts that google.rpc.Code gives its codes.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
HEALTH = "/v2/health/"
OPENAPI = Path(__file__).with_name("openapi.json")


class Observer(Protocol):
    """Whoever counts requests."""

    def http_answered(self, path: str, status: int) -> None:
        """A request for a path, as it is written in the routes, was answered with this status."""


def public_app(
    classifier: Classifier,
    explainer: Explainer,
    inference: Inference,
    observer: Observer,
    *,
    log: RequestLog | None,
    max_image_bytes: int,
    max_message_bytes: int,
    max_queue_bytes: int,
    keeps_connections: Callable[[], bool],
) -> web.Application:
    """`POST /v1/classify` and `/v1/explain`, the Open Inference Protocol below `/v2`, and `/openapi.json`.

    Every error is answered with `{"error": text, "code": name of the gRPC status}`. Once `keeps_connections` says no,
    answers tell their callers to make a new connection for the next request, which another server may take.
    """
    bodies = Bodies(max_queue_bytes)

    def picture(request: web.Request) -> AbstractAsyncContextManager[bytes]:
        """The picture that is the body, or the first file of a form."""
        too_large = f"the image has more bytes than the limit of {max_image_bytes} (--max-image-bytes)"
        file = _file(request) if request.content_type == "multipart/form-data" else None
        return bodies.read(request, max_image_bytes, too_large, file)

    async def classify(request: web.Request) -> web.Response:
        """A picture in, a prediction out."""
        async with picture(request) as image:
            answer = await classifier.classify([image], Format.ENCODED)
        result = answer.results[0]
        if isinstance(result, InvalidImage):
            raise result
        return web.json_response(_prediction(result, answer.model_version))

    async def explain(request: web.Request) -> web.Response:
        """A picture in, how it became an answer out."""
        weights = request.query.get("weights", "on")
        if weights not in ("on", "off"):
            raise InvalidRequest(f"weights is {weights[:40]!r}; expected on or off")
        async with picture(request) as image:
            explanation = await explainer.explain(image, Format.ENCODED)
        prediction = _prediction(explanation.prediction, explanation.model_version)
        body = await asyncio.to_thread(explain_json.write, explanation, prediction, with_weights=weights == "on")
        return web.Response(body=body, content_type="application/json")

    async def openapi(_: web.Request) -> web.Response:
        description = json.loads(OPENAPI.read_bytes())
        description["components"]["parameters"]["model"]["schema"]["enum"] = inference.model_names()
        return web.json_response(description)

    around = _around(observer, log, keeps_connections)
    app = web.Application(middlewares=[around])
    app.add_routes(
        [
            web.post("/v1/classify", classify),
            web.post("/v1/explain", explain),
            web.get("/openapi.json", openapi),
        ]
    )
    rest.add_routes(app, inference, bodies, max_message_bytes)
    return app


def _prediction(prediction: Prediction, model_version: str) -> dict[str, Any]:
    return {
        "digit": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": prediction.probabilities,
        "rejected": bool(prediction.rejection_reason),
        "rejection_reason": prediction.rejection_reason,
        "digit_score": prediction.digit_score,
        "model_version": model_version,
    }


async def _file(request: web.Request) -> AsyncIterator[bytes]:
    """The first file of a form, in pieces."""
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.filename is not None:
                while chunk := await part.read_chunk():
                    yield chunk
                return
    except (ValueError, AssertionError, HttpProcessingError):
        raise InvalidRequest("the body is no form that can be read; send one file, or the picture itself") from None
    raise InvalidRequest("the form holds no file; send one, or the picture itself as the body")


def _around(observer: Observer, log: RequestLog | None, keeps_connections: Callable[[], bool]) -> Middleware:
    """What happens around every request: errors become answers, and answers are counted and logged."""

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        CALLER.set(request.remote or "")
        try:
            response = await handler(request)
        except TooSlow as error:
            # The rest of it would be taken for the next request.
            response = _error(408, error.status, str(error))
            response.force_close()
        except TooLarge as error:
            response = _error(413, error.status, str(error))
        except CallError as error:
            response = _error(HTTP_STATUS[error.status], error.status, str(without_frames(error)))
        except web.HTTPNotFound:
            response = _error(404, "NOT_FOUND", "there is nothing at this address; /openapi.json lists what there is")
        except web.HTTPMethodNotAllowed as error:
            methods = ", ".join(sorted(error.allowed_methods))
            response = _error(405, "UNIMPLEMENTED", f"this address answers {methods}, not {request.method}")
            response.headers["Allow"] = methods
        except (web.RequestPayloadError, ConnectionError):
            text = "the body of the request ended early or does not follow its headers"
            response = _error(400, "INVALID_ARGUMENT", text)
        except Exception as error:
            response = _error(500, "INTERNAL", log_fault(error))
        resource = request.match_info.route.resource
        path = resource.canonical if resource else "none"
        observer.http_answered(path, response.status)
        if log is not None and not path.startswith(HEALTH) and log.picks():
            log.answered(
                f"{request.method} {request.path}",
                str(response.status),
                time.monotonic() - began,
                peer=request.remote or "",
                headers=request.headers.items(),
            )
        if not keeps_connections():
            response.force_close()
        return response

    return around


def refusal(observer: Observer) -> Refuse:
    """What answers something that is no request, in the format of all errors."""

    def refuse(status: int, error: BaseException | None) -> web.Response:
        observer.http_answered("none", status)
        if status >= 500:
            return _error(status, "INTERNAL", log_fault(error or RuntimeError("HTTP failed")))
        if status == 417:
            return _error(status, "INVALID_ARGUMENT", "the header Expect says something else than 100-continue")
        text = (
            "what arrived is no HTTP/1.1 request: its first line, a header or the framing of its body breaks the "
            "rules, or its headers are too long"
        )
        return _error(status, "INVALID_ARGUMENT", text)

    return refuse


def _error(http_status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": message, "code": code}, status=http_status)
