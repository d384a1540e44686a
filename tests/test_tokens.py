"""Tokens of callers: nothing is answered without one but health checks (S6), and none is ever shown (S7)."""

from __future__ import annotations

import ast
import inspect
import json
import socket
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from protos import digits_pb2, grpc_service_pb2
from service.client import Access, ClassifyError, Client
from service.errors import SecretUnusable
from service.security import MIN_TOKEN_CHARACTERS, Tokens
from tests.conftest import REPOSITORY
from tests.server_process import ServerProcess, wait_until
from tests.test_command import run

TOKEN, OTHER = "canary-3f9d2c81b7e64a05", "another-81b7e64a053f9d2c"
FILES = (digits_pb2, grpc_service_pb2, health_pb2, reflection_pb2)
METHODS: list[MethodDescriptor] = [
    method for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]
HEALTH = "grpc.health.v1.Health"
ADDRESSES = json.loads((REPOSITORY / "service" / "over_http" / "openapi.json").read_text())["paths"]
PROBES = ("/v2/health/live", "/v2/health/ready")
BLANK = np.zeros((28, 28), np.uint8)


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(f"# callers\n\n{TOKEN}\n{OTHER}\n")
    return file


@pytest.fixture(scope="module")
def guarded(token_file: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--token-file", str(token_file), token=TOKEN) as process:
        yield process


def call(process: ServerProcess, path: str, *, streams: bool, token: str = "", body: bytes = b"\xff") -> str:
    """The status of a call with bytes that are no message; of a stream without a single one."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(process.grpc_address) as channel:
        try:
            if streams:
                next(channel.stream_stream(path, bytes, bytes)(iter(()), metadata=metadata, timeout=10), None)
            else:
                channel.unary_unary(path, bytes, bytes)(body, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def status(url: str, method: str = "GET", authorization: str | None = None) -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    data = b"{}" if method == "POST" else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_s6_every_method_wants_a_token_but_health(guarded: ServerProcess, method: MethodDescriptor) -> None:
    """Before a message of it is read: what is sent here is none."""
    service = method.containing_service.full_name
    found = call(guarded, f"/{service}/{method.name}", streams=method.client_streaming)
    assert (found != "UNAUTHENTICATED") if service == HEALTH else (found == "UNAUTHENTICATED")


@pytest.mark.parametrize("path", ["/digits.v1.DigitClassifier/NotThereYet", "/not.there.Yet/Call"])
@pytest.mark.parametrize("streams", [False, True])
def test_s6_a_method_that_does_not_exist_yet_wants_one_too(guarded: ServerProcess, path: str, streams: bool) -> None:
    assert call(guarded, path, streams=streams) == "UNAUTHENTICATED"
    assert call(guarded, path, streams=streams, token=TOKEN) == "UNIMPLEMENTED"


@pytest.mark.parametrize("path", [*ADDRESSES, "/", "/v1/not-there-yet", "/v2//health/ready", "/v2/health/ready/"])
def test_s6_every_address_wants_a_token_but_health(guarded: ServerProcess, path: str) -> None:
    url = guarded.http_url + path.format(model="digits", version="1")
    for method in ("GET", "POST", "PUT", "HEAD", "OPTIONS"):
        assert status(url, method) == (200 if path in PROBES and method in ("GET", "HEAD") else 401)
        assert status(url, method, f"Bearer {TOKEN}") != 401


def test_s6_the_operations_port_shows_metrics_to_holders_of_a_token_only(guarded: ServerProcess) -> None:
    assert [status(f"{guarded.ops_url}{path}") for path in ("/livez", "/readyz", "/metrics", "/")] == [
        200,
        200,
        401,
        401,
    ]
    before = guarded.metric("digitserve_turned_away_total", port="http")
    status(f"{guarded.ops_url}/metrics")
    assert guarded.metric("digitserve_turned_away_total", port="http") == before + 1
    before = guarded.metric("digitserve_turned_away_total", port="grpc")
    call(guarded, "/digits.v1.DigitClassifier/GetModel", streams=False)
    assert guarded.metric("digitserve_turned_away_total", port="grpc") == before + 1


@pytest.mark.slow
def test_s6_workers_and_their_supervisor_want_one_too(token_file: Path) -> None:
    with ServerProcess("--workers", "2", "--token-file", str(token_file), token=TOKEN) as process:
        assert call(process, "/digits.v1.DigitClassifier/GetModel", streams=False) == "UNAUTHENTICATED"
        assert call(process, "/digits.v1.DigitClassifier/GetModel", streams=False, token=TOKEN, body=b"") == "OK"
        for url in (f"{process.http_url}/v2", f"{process.ops_url}/metrics"):
            assert (status(url), status(url, authorization=f"Bearer {TOKEN}")) == (401, 200)
        assert status(f"{process.ops_url}/readyz") == 200
        assert process.metric("digitserve_turned_away_total", port="grpc") == 1


@pytest.mark.parametrize("token", [TOKEN, OTHER])
def test_holders_of_any_token_are_answered(guarded: ServerProcess, token: str, tmp_path: Path) -> None:
    with Client(guarded.grpc_address, access=Access(token=token)) as client:
        assert client.model().version == "1"
        assert client.classify(BLANK).rejection_reason == "blank"
        assert len(client.classify_batch([BLANK])) == len(list(client.classify_stream([BLANK]))) == 1
    (tmp_path / "token").write_text(f"{token}\n")
    done = run("info", "--address", guarded.grpc_address, "--token-file", tmp_path / "token")
    assert done.returncode == 0
    assert run("healthcheck", "--address", guarded.grpc_address).returncode == 0


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer  {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {OTHER}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer # callers",
        "Bearer \xe9\xff",
    ],
)
def test_s7_anything_else_is_no_token(guarded: ServerProcess, authorization: str) -> None:
    assert status(f"{guarded.http_url}/v2", authorization=authorization) == 401
    assert status(f"{guarded.http_url}/v2", authorization=f"bearer {TOKEN}") == 200


def test_s7_tokens_are_compared_in_constant_time() -> None:
    code = ast.parse(textwrap.dedent(inspect.getsource(Tokens.admit)))
    names = {node.attr for node in ast.walk(code) if isinstance(node, ast.Attribute)}
    assert "compare_digest" in names
    compared = [ast.unparse(node) for node in ast.walk(code) if isinstance(node, ast.Compare)]
    assert compared == ["scheme.lower() == b'bearer'"]


def test_s7_a_token_is_in_no_log_metric_error_or_process_title(tmp_path: Path) -> None:
    """A canary: right, nearly right and in the wrong place."""
    file = tmp_path / "tokens"
    file.write_text(TOKEN)
    with ServerProcess("--token-file", str(file), token=TOKEN) as process:
        said = []
        for shown in (TOKEN, f"{TOKEN}x"):
            with Client(process.grpc_address, access=Access(token=shown)) as client:
                try:
                    client.classify(b"no image")
                except ClassifyError as error:
                    said.append(str(error))
            for path in ("/v2/models/none", "/nowhere", "/metrics"):
                for url in (process.http_url, process.ops_url):
                    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {shown}"})
                    try:
                        with urllib.request.urlopen(request, timeout=10) as response:
                            said.append(response.read().decode())
                    except urllib.error.HTTPError as error:
                        with error:
                            said.append(error.read().decode() + str(error.headers))
        _, log = process.stop()
    assert len(said) > 12
    assert "UNAUTHENTICATED" in "".join(said) and "INVALID_ARGUMENT" in "".join(said)
    assert TOKEN not in "".join(said) + log
    assert TOKEN not in repr(Access(token=TOKEN))


def test_s7_a_list_that_was_spoilt_changes_nothing_and_is_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens"
    file.write_text(TOKEN)
    tokens = Tokens(file)
    file.write_text(f"{OTHER}\n{TOKEN} spoilt\n")
    tokens.files.look()
    assert tokens.admit(f"Bearer {TOKEN}") and not tokens.admit(f"Bearer {OTHER}")
    assert "the list of tokens stays as it was: the token in line 2" in caplog.text
    assert TOKEN not in caplog.text + repr(vars(tokens)) + repr(vars(tokens.files))


def test_tokens_come_and_go_with_their_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(TOKEN)

    def answered(token: str) -> bool:
        return status(f"{process.http_url}/v2", authorization=f"Bearer {token}") == 200

    with ServerProcess("--token-file", str(file), token=TOKEN) as process:
        assert (answered(TOKEN), answered(OTHER)) == (True, False)
        file.write_text(f"{TOKEN}\n{OTHER}\n")
        wait_until(lambda: answered(OTHER))
        assert answered(TOKEN)
        file.write_text(f"{OTHER}\n")
        wait_until(lambda: not answered(TOKEN))
        file.unlink()
        assert answered(OTHER)
        file.write_text("")
        wait_until(lambda: not answered(OTHER))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot read {}: No such file or directory"),
        ("", "{} holds no token; write one a line"),
        ("# none\n", "{} holds no token; write one a line"),
        (f"{TOKEN}\nshort\n", "the token in line 2 of {} must be 16 or more visible ASCII characters"),
        (f"{'t' * MIN_TOKEN_CHARACTERS} x", "the token in line 1 of {} must be"),
        ("é" * MIN_TOKEN_CHARACTERS, "the token in line 1 of {} must be"),
    ],
)
def test_a_file_without_usable_tokens_is_named_at_the_start(tmp_path: Path, content: str | None, text: str) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SecretUnusable) as caught:
        Tokens(file)
    assert text.format(file) in str(caught.value)
    assert content is None or not content or content not in str(caught.value)


@pytest.mark.parametrize("token", ["", " ", "two\nlines", "é"])
def test_a_client_refuses_a_token_that_no_header_can_carry(token: str) -> None:
    with pytest.raises(ValueError, match="the token is empty, or holds characters"):
        Access(token=token)


def test_a_caller_without_a_token_who_never_sends_its_body_is_refused_at_once(guarded: ServerProcess) -> None:
    host, port = guarded.http_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as upload:
        upload.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert upload.recv(1000).startswith(b"HTTP/1.1 401 ")
