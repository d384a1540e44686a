"""The Open Inference Protocol over REST, and pictures in forms, against the real server process."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from service.client import Client
from service.errors import InvalidRequest
from service.over_http import rest_tensors, web
from service.over_http.rest_tensors import read_request
from service.over_http.web import OPENAPI
from tests.asking import serving
from tests.conftest import REPOSITORY
from tests.pictures import Pixels, encode
from tests.server_process import ServerProcess

Digits = tuple[Pixels, Pixels]


def ask(server: ServerProcess, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a GET, or of a POST if there is a body."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server.http_url + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def pixels(image: npt.NDArray[Any], **fields: Any) -> dict[str, Any]:
    """An input with numbers in JSON."""
    return {"name": "image", "datatype": "UINT8", "shape": [1, 1, 28, 28], "data": image.tolist(), **fields}


def test_numbers_and_files_in_json(server: ServerProcess, client: Client, digits: Digits) -> None:
    image = digits[0][0]
    expected = client.classify(image)
    file = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(encode(image)).decode()]}
    for path, given in (("digits", pixels(image)), ("digits_image/versions/1", file)):
        status, answer = ask(server, f"/v2/models/{path}/infer", {"id": "a", "inputs": [given]})
        assert (status, answer["id"], answer["model_version"]) == (200, "a", "1")
        probabilities, score = answer["outputs"]
        assert (probabilities["shape"], score["shape"]) == ([1, 10], [1])
        assert probabilities["data"] == pytest.approx(expected.probabilities, abs=1e-6)


BINARY = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 28, 28]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "the body is no JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "the JSON of the body is nested too deeply"),
        (b'{"inputs": [' + b"[]," * 100_000 + b"0]}", "has more than 100000 lists and objects"),
        ({"inputs": [[0] * 100_000]}, f"'inputs' is [[{'0, ' * 19}0...; expected a list of objects"),
        (b"[]", "the body is []; expected a JSON object"),
        (b"null", "the body is null; expected a JSON object"),
        ({"inputs": {}}, "'inputs' is {}; expected a list of objects"),
        ({"inputs": []}, "takes one input, 'image'; the request has none"),
        ({"id": 7, "inputs": []}, "'id' is 7; expected a text"),
        ({"id": "\ud800", "inputs": []}, "half a character"),
        ({"parameters": {"x": []}, "inputs": []}, "the parameter 'x' is []"),
        ({"parameters": 1, "inputs": []}, "'parameters' is 1; expected an object"),
        ({"parameters": {"x": 2**64}, "inputs": []}, "the parameter 'x' is 18446744073709551616; expected"),
        ({"parameters": {"binary_data_output": 1}, "inputs": []}, "'binary_data_output' is 1; expected true or false"),
        ({"inputs": [{"name": "image"}]}, "'datatype' is missing"),
        ({"inputs": [{"name": "image", "datatype": None}]}, "'datatype' is null; expected a text"),
        ({"inputs": [pixels(np.zeros(1), data=[None])]}, "something that is no number"),
        (
            {"parameters": {"timeout": "soon"}, "inputs": [pixels(np.zeros(784, np.uint8))]},
            "the parameter 'timeout' is a string_param",
        ),
        ({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1.5]}]}, "'shape' is [1.5]"),
        ({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2**63]}]}, "'shape' is"),
        ({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1]}]}, "neither 'data' nor"),
        (
            {"inputs": [pixels(np.zeros(783, np.uint8))]},
            "'data' holds 783 numbers; its 'shape' [1, 1, 28, 28] does not",
        ),
        ({"inputs": [pixels(np.zeros(784, np.int32) - 1)]}, "values from -1 to -1; UINT8 is 0 to 255"),
        ({"inputs": [pixels(np.zeros(784))]}, "UINT8 is 0 to 255, without a decimal point"),
        ({"inputs": [{**pixels(np.zeros(1)), "data": [[1], [2, 3]]}]}, "'data' holds 3 numbers"),
        # As an array of texts of the same length these would take 3.6 TiB.
        (
            {"inputs": [{**pixels(np.zeros(1)), "data": ["a" * 100_000] + [""] * 100_000}]},
            "something that is no number",
        ),
        ({"inputs": [{**pixels(np.zeros(1)), "data": [2**70]}]}, "a number of more than 64 bits"),
        ({"inputs": [{**pixels(np.zeros(1)), "parameters": {"binary_data_size": 0}}]}, "has both 'data' and"),
        ({"inputs": [{**pixels(np.zeros(1)), "data": ["a"]}]}, "something that is no number"),
        ({"inputs": [{**pixels(np.zeros(1)), "datatype": "INT64"}]}, "has datatype 'INT64'"),
        ({"inputs": [{**BINARY, "parameters": {"binary_data_size": -1}}]}, "binary_data_size is -1"),
        ({"inputs": [{**BINARY, "parameters": {"binary_data_size": 9}}]}, "0 bytes are left"),
    ],
)
def test_a_body_that_is_not_acceptable(server: ServerProcess, body: object, text: str) -> None:
    status, answer = ask(server, "/v2/models/digits/infer", body)
    assert (status, answer["code"]) == (400, "INVALID_ARGUMENT")
    assert text in answer["error"]


def test_null_stands_for_what_is_left_out_and_parameters_may_have_64_bits(
    server: ServerProcess, digits: Digits
) -> None:
    body = {
        "id": None,
        "parameters": {"priority": 2**64 - 1},
        "inputs": [pixels(digits[0][0], parameters=None)],
        "outputs": None,
    }
    status, answer = ask(server, "/v2/models/digits/infer", body)
    assert status == 200 and "id" not in answer
    assert [each["name"] for each in answer["outputs"]] == ["probabilities", "digit_score"]
    for ready, expected in (None, 200), (True, 200), (1, 400):
        assert ask(server, "/v2/repository/index", {"ready": ready})[0] == expected


def test_bodies_as_mlserver_writes_them(server: ServerProcess, digits: Digits) -> None:
    """`InferenceRequest.json()` of mlserver 1.7 has a null for every field without a value, and files as [N, 1]."""
    none = {"id": None, "parameters": None, "outputs": None}
    numbers = pixels(digits[0][0], parameters={"content_type": "np", "headers": None})
    data = [base64.b64encode(encode(digits[0][0])).decode()]
    parameters = {"content_type": "base64", "headers": None}
    file = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": parameters, "data": data}
    answers = []
    for model, given in (("digits", numbers), ("digits_image", file)):
        status, answer = ask(server, f"/v2/models/{model}/infer", {**none, "inputs": [given]})
        assert (status, answer["outputs"][0]["shape"]) == (200, [1, 10])
        answers.append(answer["outputs"][0]["data"])
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


@pytest.mark.parametrize(("outputs", "in_thread"), [([], True), ([{"name": "digit_score"}], False)])
async def test_a_large_answer_to_a_small_request_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, outputs: list[Any], in_thread: bool
) -> None:
    """It is written in a thread, and in pieces: `json` holds the GIL until it is done, in a thread as well."""
    lists: list[int] = []
    threads = set()

    def dumps(value: Any) -> str:
        lists.append(len(value) if isinstance(value, list) else 0)
        threads.add(threading.current_thread())
        return json.dumps(value)

    monkeypatch.setattr(rest_tensors, "json", SimpleNamespace(dumps=dumps, loads=json.loads))
    picture = base64.b64encode((REPOSITORY / "service" / "examples" / "seven.png").read_bytes()).decode()
    file = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [picture]}
    body = json.dumps({"inputs": [file], "outputs": outputs}).encode()
    async with serving(REPOSITORY / "models") as asker:
        url = f"http://127.0.0.1:{asker.server.http_port}/v2/models/digits_explain/infer"
        answer = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(url, body, 30).read()))
    assert sum(len(each["data"]) for each in answer["outputs"]) == sum(lists)
    assert max(lists) <= rest_tensors.NUMBERS_AT_ONCE
    assert (threading.current_thread() not in threads) == in_thread


def test_files_that_are_no_base64(server: ServerProcess) -> None:
    for data in (["?"], [1], [["é"]]):
        given = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data}
        status, answer = ask(server, "/v2/models/digits_image/infer", {"inputs": [given]})
        assert status == 400 and "expected the base64 text of an image file" in answer["error"]


@pytest.mark.parametrize(
    ("length", "status", "text"),
    [("x", 400, "expected a whole number"), ("9999", 400, "the body has"), ("5", 400, "no JSON")],
)
def test_a_wrong_length_of_the_json(server: ServerProcess, length: str, status: int, text: str) -> None:
    found, answer = ask(
        server, "/v2/models/digits/infer", {"inputs": []}, **{"Inference-Header-Content-Length": length}
    )
    assert found == status and text in answer["error"]


def test_bytes_that_belong_to_no_input_are_refused(server: ServerProcess) -> None:
    body = b'{"inputs": []}'
    headers = {"Inference-Header-Content-Length": str(len(body))}
    status, answer = ask(server, "/v2/models/digits/infer", body + b"more", **headers)
    assert status == 400 and "4 bytes after the JSON belong to no input" in answer["error"]


def test_deeply_nested_numbers_do_no_harm() -> None:
    nested: Any = [0] * 784
    for _ in range(400):
        nested = [nested]
    document = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": nested}]}
    with pytest.raises(InvalidRequest, match="expected the base64"):
        read_request(json.dumps(document).encode(), None, "digits_image", "")


def test_what_is_not_there(server: ServerProcess) -> None:
    for path in (
        "/nothing",
        "/v2/models/x",
        "/v2/models/digits/versions/2",
        "/v2/models/x/ready",
        "/v2/models/..%2fx/config",
    ):
        status, answer = ask(server, path)
        assert (status, answer["code"]) == (404, "NOT_FOUND") and answer["error"]
    status, answer = ask(server, "/v2/models/digits", b"x")
    assert (status, answer["code"]) == (405, "UNIMPLEMENTED")
    assert "GET" in answer["error"]


def test_a_body_over_the_limit(server: ServerProcess) -> None:
    status, answer = ask(server, "/v2/models/digits/infer", bytes((8 << 20) + 1))
    assert status == 413 and "(--max-message-bytes)" in answer["error"]


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """A form, and its content type; each part has the rest of its head, and its content."""
    lines = b"".join(
        b"--edge\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return lines + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def test_a_picture_in_a_form(server: ServerProcess, digits: Digits) -> None:
    body, kind = form(('name="note"', b"hello"), ('name="image"; filename="a.png"', encode(digits[0][0])))
    status, answer = ask(server, "/v1/classify", body, **{"Content-Type": kind})
    assert status == 200 and answer["digit"] == digits[1][0]


def test_forms_that_are_not_acceptable(server: ServerProcess) -> None:
    huge = form(('name="image"; filename="a.png"', bytes((4 << 20) + 1)))
    for (body, kind), status, text in (
        (form(('name="note"', b"hello")), 400, "the form holds no file"),
        ((b"nothing", "multipart/form-data; boundary=edge"), 400, "no form that can be read"),
        ((b"nothing", "multipart/form-data"), 400, "no form that can be read"),
        (form(('name="\x1b"', b"")), 400, "no form that can be read"),
        (huge, 413, "(--max-image-bytes)"),
    ):
        found, answer = ask(server, "/v1/classify", body, **{"Content-Type": kind})
        assert (found, answer["code"]) == (status, "INVALID_ARGUMENT") and text in answer["error"]


def test_the_description_names_every_address(server: ServerProcess) -> None:
    status, description = ask(server, "/openapi.json")
    assert status == 200 and description == json.loads(OPENAPI.read_text())
    limits = {"max_image_bytes": 1, "max_message_bytes": 1, "max_queue_bytes": 1}
    app = web.public_app(None, None, None, None, log=None, **limits, keeps_connections=lambda: True)  # type: ignore[arg-type]
    routes = {
        (route.resource.canonical, route.method.lower())
        for route in app.router.routes()
        if route.resource and route.method != "HEAD"
    }
    assert {(path, method) for path, methods in description["paths"].items() for method in methods} == routes
