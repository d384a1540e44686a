"""What is sent to the HTTP port is held only as far as there is room for it, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from service.errors import QueueFull
from service.over_http import http_bodies
from service.over_http.http_bodies import Bodies
from service.server import running
from tests.server_process import wait_until
from tests.test_rest import form
from tests.test_server import free_ports

LARGE = bytes(900_000)
SMALL = bytes(http_bodies.LIGHT_BYTES)
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def reading(bodies: Bodies) -> AsyncIterator[int]:
    """A server that says how long bodies are; the port."""

    async def length(request: web.Request) -> web.Response:
        try:
            async with bodies.read(request, 1 << 20, "too large") as body:
                return web.Response(text=str(len(body)))
        except QueueFull as error:
            return web.Response(status=429, text=str(error))

    app = web.Application()
    app.router.add_post("/", length)
    async with TestServer(app) as server:
        assert server.port is not None
        yield server.port


async def begun(port: int, *headers: str) -> Ends:
    """A request of which the body is still to come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join(("POST / HTTP/1.1", "Host: x", "Connection: close", *headers, "", "")).encode())
    return reader, writer


async def answer(ends: Ends, sent: bytes = b"") -> str:
    """What is answered to the rest of a request: status and text."""
    reader, writer = ends
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    text = await reader.readexactly(length)
    writer.close()
    return f"{head.split()[1].decode()} {text.decode()}"


async def until_held(bodies: Bodies, size: int) -> None:
    await asyncio.to_thread(wait_until, lambda: bodies.bytes == size)


async def test_a_body_for_which_there_is_no_room_is_refused_before_it_comes() -> None:
    bodies = Bodies(1 << 20)
    announced = f"Content-Length: {len(LARGE)}"
    async with reading(bodies) as port:
        slow = await begun(port, announced)
        slow[1].write(LARGE[1:])
        await until_held(bodies, len(LARGE) - 1)
        # Not a byte of it is sent.
        refused = await answer(await begun(port, announced))
        assert refused == (
            "429 requests of 899999 bytes are in progress and 900000 more would exceed the limit of 1048576 "
            "(--max-queue-bytes); try again a little later"
        )
        chunked = await begun(port, "Transfer-Encoding: chunked")
        assert (await answer(chunked, b"dbba0\r\n" + LARGE + b"\r\n0\r\n\r\n")).startswith("429")
        assert await answer(await begun(port, f"Content-Length: {len(SMALL)}"), SMALL) == f"200 {len(SMALL)}"
        assert await answer(slow, LARGE[:1]) == f"200 {len(LARGE)}"
        await until_held(bodies, 0)
        assert await answer(await begun(port, announced), LARGE) == f"200 {len(LARGE)}"


async def test_a_body_is_forgotten_when_its_caller_leaves() -> None:
    bodies = Bodies(1 << 20)
    async with reading(bodies) as port:
        _, writer = await begun(port, f"Content-Length: {len(LARGE)}")
        writer.write(LARGE[1:])
        await until_held(bodies, len(LARGE) - 1)
        writer.close()
        await until_held(bodies, 0)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", b"Content-Length: 9\r\n\r\nabc"])
@pytest.mark.parametrize("path", [b"/v1/classify", b"/v2/models/digits/infer"])
async def test_a_body_that_never_ends_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, path: bytes, sent: bytes
) -> None:
    monkeypatch.setattr(http_bodies, "BODY_S", 0.2)
    async with running(free_ports()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
        writer.write(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + sent)
        answered = await reader.read()
        writer.close()
    assert answered.startswith(b"HTTP/1.1 408") and b"did not arrive within 0.2 s" in answered


async def test_every_address_that_takes_much_has_the_limit() -> None:
    file, kind = form(('name="image"; filename="a.png"', bytes(2 << 20)))
    requests = [
        ("/v1/classify", bytes(2 << 20), "image/png"),
        ("/v1/classify", file, kind),
        ("/v1/explain", bytes(2 << 20), "image/png"),
        ("/v2/models/digits/infer", bytes(2 << 20), "application/json"),
    ]
    async with running(free_ports(max_queue_bytes=1 << 20)) as server:
        for path, body, content_type in requests:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
            ends = await asyncio.open_connection("127.0.0.1", server.http_port)
            answered = await answer(ends, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert answered.startswith('429 {"error": "requests of 0 bytes are in progress'), path
            assert '"code": "RESOURCE_EXHAUSTED"' in answered, path


@pytest.mark.parametrize("path", ["index", "models/digits/load", "models/digits/unload"])
async def test_what_is_said_of_models_is_short(path: str) -> None:
    async with running(free_ports(model_control="explicit")) as server:
        ends = await asyncio.open_connection("127.0.0.1", server.http_port)
        head = f"POST /v2/repository/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n"
        answered = await answer(ends, head.encode() + bytes(4097))
    assert answered.startswith('413 {"error": "the body has more than the 4096 bytes that this address takes"')
