"""What is no request, and connections that outlive a request, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from service.__main__ import EXAMPLES
from service.client import Client
from service.observing.metrics import Metrics
from service.over_http import http_connections
from service.over_http.http_connections import Runner
from service.over_http.web import refusal
from service.processes import draining
from service.processes.ports import open_http
from service.server import running
from tests.server_process import COMMAND, ServerProcess, wait_until
from tests.test_server import free_ports, until_metrics_show

SEVEN = EXAMPLES / "seven.png"

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


@contextlib.asynccontextmanager
async def port_of(handler: Handler, max_connections: int) -> AsyncIterator[int]:
    """A port that answers with a handler at /, and has room for so many connections."""
    app = web.Application()
    app.router.add_get("/", handler)
    refuse = refusal(Metrics())
    async with contextlib.AsyncExitStack() as stack:
        runner = Runner(app, refuse, max_connections=max_connections, shutdown_timeout=0)
        yield await open_http(stack, runner, "127.0.0.1", 0, "--http-port", None)


class Caller:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer

    async def ask(self, path: str = "/") -> bytes:
        """The body of a GET."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        return await self.reader.readexactly(int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]))

    async def is_closed(self) -> bool:
        """Whether the server closes the connection, for which this waits, without a further word."""
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read() == b""
            return True


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()


async def test_a_request_that_goes_no_further_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "REQUEST_S", 0.3)
    async with running(free_ports()) as server:
        for port, path in ((server.http_port, "/v2/health/live"), (server.ops_port, "/livez")):
            async with connected(port) as kept, connected(port) as nothing, connected(port) as half:
                await kept.ask(path)
                half.writer.write(b"GET /livez HTTP/1.1\r\nHost: ")
                assert await nothing.is_closed() and await half.is_closed()
                # Idle for as long, and not in the middle of anything.
                assert await kept.ask(path)
                kept.writer.write(b"GET /livez HTTP/1.1\r\nHost: ")
                assert await kept.is_closed()


async def test_an_answer_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "ANSWER_S", 0.3)
    transports: list[asyncio.Transport] = []

    async def much(request: web.Request) -> web.Response:
        assert request.transport is not None
        transports.append(request.transport)
        return web.Response(body=bytes(64 << 20))

    async with port_of(much, max_connections=9) as port, connected(port) as caller:
        # Reads no more than fits into its own buffer.
        caller.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.to_thread(wait_until, lambda: bool(transports) and transports[0].is_closing())


async def test_whoever_asks_nothing_makes_room_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "REQUEST_S", 600)
    may_answer = asyncio.Event()
    asked = asyncio.Queue[None]()

    async def patient(_: web.Request) -> web.Response:
        asked.put_nowait(None)
        await may_answer.wait()
        return web.Response(text="answer")

    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(port_of(patient, max_connections=2))
        silent, first = [await stack.enter_async_context(connected(port)) for _ in range(2)]
        answers = [asyncio.create_task(first.ask())]
        await asked.get()
        second = await stack.enter_async_context(connected(port))
        assert await silent.is_closed()
        answers.append(asyncio.create_task(second.ask()))
        await asked.get()
        third = await stack.enter_async_context(connected(port))
        assert await third.is_closed()
        may_answer.set()
        assert await asyncio.gather(*answers) == [b"answer", b"answer"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_full_leaves_descriptors_to_the_others(transport: str, workers: str, tmp_path: Path) -> None:
    """A shell's limit of 200 files; to each HTTP port twice as many connections, which ask once and stay."""
    limited = tmp_path / "digitserve"
    limited.write_text(f'#!/bin/sh\nulimit -n 200\nexec {COMMAND} "$@"\n')
    limited.chmod(0o755)
    flags = ("--transport", transport, "--workers", workers)
    with ServerProcess(*flags, command=limited) as server, contextlib.ExitStack() as stack:
        for url in (server.http_url, server.ops_url) * 400:
            host, port = url.removeprefix("http://").split(":")
            kept = stack.enter_context(socket.create_connection((host, int(port))))
            kept.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.get(f"{server.ops_url}/livez") == "ok\n"
        assert json.loads(server.get(f"{server.http_url}/v2/health/ready")) == {"ready": True}
        with Client(server.grpc_address) as client:
            assert client.classify(SEVEN.read_bytes()).digit == 7
