"""The HTTP side: the operations port, and a JSON door to the classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from service.classifier import Classifier, Format
from service.errors import CallError, InvalidImage, log_fault

# The HTTP counterparts that google.rpc.Code gives its codes.
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class Observer(Protocol):
    """Whoever counts requests."""

    def http_answered(self, status: int) -> None:
        """A classification over HTTP was answered with this status."""


class Exposition(Protocol):
    """Whoever can show the metrics."""

    content_type: str

    def exposition(self) -> bytes:
        """All series in Prometheus' text format."""


def operations_app(metrics: Exposition, is_ready: Callable[[], bool]) -> web.Application:
    """`/metrics`, `/livez` (the event loop turns) and `/readyz` (calls are welcome)."""

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": metrics.content_type})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if is_ready() else web.Response(status=503, text="not ready\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", show_metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app


def public_app(classifier: Classifier, observer: Observer, *, max_image_bytes: int) -> web.Application:
    """`POST /v1/classify`: an image file as the body, the prediction as JSON."""

    async def classify(request: web.Request) -> web.Response:
        response = await answer_to(request)
        observer.http_answered(response.status)
        return response

    async def answer_to(request: web.Request) -> web.Response:
        try:
            answer = await classifier.classify([await request.read()], Format.ENCODED)
            result = answer.results[0]
            if isinstance(result, InvalidImage):
                raise result
        except CallError as error:
            return _error(HTTP_STATUS[error.status], error.status, str(error))
        except web.HTTPRequestEntityTooLarge:
            text = f"the image has more bytes than the limit of {max_image_bytes} (--max-image-bytes)"
            return _error(413, "INVALID_ARGUMENT", text)
        except (web.RequestPayloadError, ConnectionError):
            return _error(400, "INVALID_ARGUMENT", "the body of the request ended early or does not follow its headers")
        except Exception as error:
            return _error(500, "INTERNAL", log_fault(error))
        return web.json_response(
            {
                "digit": result.digit,
                "confidence": result.confidence,
                "probabilities": result.probabilities,
                "rejected": bool(result.rejection_reason),
                "rejection_reason": result.rejection_reason,
                "model_version": answer.model_version,
            }
        )

    app = web.Application(client_max_size=max_image_bytes)
    app.add_routes([web.post("/v1/classify", classify)])
    return app


def _error(http_status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=http_status)
