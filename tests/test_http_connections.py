"""What is no request, and connections that outlive a request, over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket

import pytest

from service.processes import draining
from service.server import running
from tests.server_process import ServerProcess
from tests.test_server import free_ports, until_metrics_show

HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\n"


def answer(server: ServerProcess, sent: bytes) -> tuple[int, bytes]:
    """Status and body of what the HTTP port answers to these bytes, until it closes the connection."""
    host, port = server.http_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"secret\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET http://[::1/v2 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (HEAD + b"secret\r\n\r\n", 400),
        (HEAD + b"X: " + b"secret" * 2000 + b"\r\n\r\n", 400),
        (HEAD + b"Content-Length: secret\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nsecret\r\n", 400),
        (HEAD + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", 400),
        (HEAD + b"Expect: secret\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", 417),
    ],
)
def test_what_is_no_request_is_refused_in_the_one_format(server: ServerProcess, sent: bytes, status: int) -> None:
    found, body = answer(server, sent)
    refusal = json.loads(body)
    assert (found, refusal["code"]) == (status, "INVALID_ARGUMENT")
    assert refusal["error"] and "secret" not in refusal["error"]


async def test_a_drain_asks_callers_for_a_new_connection_before_it_closes_theirs() -> None:
    context = running(free_ports(drain_delay_s=600))
    server = await context.__aenter__()
    kept = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)

    def ask() -> tuple[int, str | None]:
        kept.request("GET", "/v2/health/live")
        response = kept.getresponse()
        response.read()
        return response.status, response.headers["Connection"]

    try:
        assert await asyncio.to_thread(ask) == (200, None)
        leaving = asyncio.create_task(context.__aexit__(None, None, None))
        await until_metrics_show(server.ops_port, "digitserve_ready 0.0")
        assert await asyncio.to_thread(ask) == (200, "close")
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    finally:
        kept.close()


async def test_a_request_that_arrives_while_the_port_closes_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough for a machine that is busy with other things.
    monkeypatch.setattr(draining, "HANDOVER_S", 2.0)
    context = running(free_ports())
    server = await context.__aenter__()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)

    async def ask() -> bytes:
        writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        return await reader.readuntil(b"}")

    assert b"Connection" not in await ask()
    leaving = asyncio.create_task(context.__aexit__(None, None, None))
    # As soon as nobody else gets in.
    while True:
        try:
            _, other = await asyncio.open_connection("127.0.0.1", server.http_port)
        except ConnectionRefusedError:
            break
        other.close()
        await asyncio.sleep(0)
    answered = await ask()
    assert answered.startswith(b"HTTP/1.1 200") and b"Connection: close" in answered
    await leaving
    writer.close()
