"""The operations port and the JSON door of the real server process."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from service.classifier import Answer
from service.client import Client
from service.errors import CallError, NotReady, QueueFull
from service.observing.metrics import Metrics
from service.over_http import web
from tests.pictures import Pixels, encode, on_paper
from tests.server_process import ServerProcess

Digits = tuple[Pixels, Pixels]


def post(server: ServerProcess, body: bytes) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{server.http_url}/v1/classify", data=body)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_picture_posted_is_answered_as_over_grpc(server: ServerProcess, client: Client, digits: Digits) -> None:
    picture = encode(on_paper(digits[0][0]))
    status, answer = post(server, picture)
    expected = client.classify(picture)
    assert status == 200
    assert answer["digit"] == expected.digit
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    assert (answer["rejected"], answer["rejection_reason"]) == (expected.rejected, expected.rejection_reason)
    assert answer["digit_score"] == pytest.approx(expected.digit_score, rel=1e-6)
    assert answer["model_version"] == "1"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"hello", 400, "the 5 bytes are no image the server can read"),
        (b"", 400, "the image is empty"),
        (bytes((4 << 20) + 1), 413, "more bytes than the limit of 4194304 (--max-image-bytes)"),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(server: ServerProcess, body: bytes, status: int, text: str) -> None:
    found, answer = post(server, body)
    assert found == status
    assert answer["code"] == "INVALID_ARGUMENT"
    assert text in answer["error"]


def test_answers_are_counted_by_status(server: ServerProcess) -> None:
    before = server.metric("digitserve_http_requests_total", status="400")
    post(server, b"hello")
    assert server.metric("digitserve_http_requests_total", status="400") == before + 1


def test_a_body_that_is_not_what_its_headers_say(server: ServerProcess) -> None:
    headers = {"Content-Encoding": "gzip"}
    request = urllib.request.Request(f"{server.http_url}/v1/classify", data=b"not gzip", headers=headers)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=10)
    assert error.value.code == 400
    error.value.close()


class Failing:
    """A classifier that fails in one way."""

    def __init__(self, error: Exception):
        self._error = error

    async def classify(self, *args: object) -> Answer:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status", "code", "text"),
    [
        (NotReady("come again"), 503, "UNAVAILABLE", "come again"),
        (QueueFull("too many"), 429, "RESOURCE_EXHAUSTED", "too many"),
        (RuntimeError("secret"), 500, "INTERNAL", "its log knows more under id"),
    ],
)
async def test_every_error_has_its_http_status(error: Exception, status: int, code: str, text: str) -> None:
    app = web.public_app(
        Failing(error),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        Metrics(),
        log=None,
        max_image_bytes=1000,
        max_message_bytes=2000,
        max_queue_bytes=3000,
        keeps_connections=lambda: True,
    )
    async with TestClient(TestServer(app)) as client:
        response = await client.post("/v1/classify", data=b"x")
        answer = await response.json()
    assert (response.status, answer["code"]) == (status, code)
    assert text in answer["error"] and "secret" not in answer["error"]


def test_every_status_of_our_errors_has_an_http_counterpart() -> None:
    assert {error.status for error in CallError.__subclasses__()} <= web.HTTP_STATUS.keys()


def test_the_operations_port_says_alive_and_ready(server: ServerProcess) -> None:
    assert server.get(f"{server.ops_url}/livez") == "ok\n"
    assert server.get(f"{server.ops_url}/readyz") == "ok\n"


def test_the_metrics_tell_what_happened(server: ServerProcess, client: Client, digits: Digits) -> None:
    call = {"grpc_service": "digits.v1.DigitClassifier", "grpc_method": "Classify"}
    before = server.metric("grpc_server_handled_total", grpc_code="OK", **call)
    sevens = server.metric("digitserve_predictions_total", digit="7")
    seven = digits[0][digits[1] == 7][0]
    assert client.classify(seven).digit == 7
    assert server.metric("grpc_server_handled_total", grpc_code="OK", **call) == before + 1
    assert server.metric("digitserve_predictions_total", digit="7") == sevens + 1
    assert server.metric("digitserve_provider_info", got="CPUExecutionProvider") == 1
    assert server.metric("digitserve_model_info", name="digits", version="1") == 1
    assert server.metric("digitserve_queue_images") == 0
    assert server.metric("process_resident_memory_bytes") > 0


def test_promtool_accepts_the_metrics(server: ServerProcess, client: Client, digits: Digits) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; it comes with Debian's prometheus package")
    client.classify(encode(digits[0][0]))
    exposition = server.get(f"{server.ops_url}/metrics")
    check = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, text=True, timeout=60)
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
