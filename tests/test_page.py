"""The files of the page, as the real server sends them."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message

import pytest

from service.over_http.page import CONTENT_TYPES, EXAMPLES, FOLDER
from tests.server_process import ServerProcess

FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in CONTENT_TYPES)
CONTENTS = {path.name: path.read_bytes() for path in FILES}
TEXTS = {name: content.decode() for name, content in CONTENTS.items() if not name.endswith(".jpg")}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One server; which implementation of gRPC it has is nothing to the page."""
    with ServerProcess() as process:
        yield process


def get(url: str, **headers: str) -> tuple[int, Message, bytes]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def address(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


@pytest.mark.parametrize("name", CONTENTS)
def test_every_file_may_load_and_run_nothing_but_what_is_ours(server: ServerProcess, name: str) -> None:
    status, headers, body = get(f"{server.http_url}{address(name)}")
    assert (status, body) == (200, CONTENTS[name])
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("img-src") == "'self' blob: data:"
    assert {policy.pop(kind) for kind in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert policy.keys() == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert set(policy.values()) == {"'none'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Set-Cookie"] is None and headers["Access-Control-Allow-Origin"] is None


def test_the_page_is_small_and_refers_to_no_other_place() -> None:
    contents = [*CONTENTS.values(), *(path.read_bytes() for path in EXAMPLES.glob("*.png"))]
    assert sum(map(len, contents)) < 150_000
    for name, text in TEXTS.items():
        assert not re.findall(r"(?<!http:)//\w+\.|https?://(?!www\.w3\.org/2000/svg)", text), name
    assert not re.findall(r"<style|<script(?! type=\"module\" src=)|\sstyle=|\son\w+=", TEXTS["index.html"])


def test_what_the_page_asks_for_is_there(server: ServerProcess) -> None:
    asked_for = set(re.findall(r'"(page/[\w.]+)"', TEXTS["index.html"] + TEXTS["examples.js"]))
    asked_for |= {f"page/{name}" for text in TEXTS.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert {f"page/{name}" for name in CONTENTS} == asked_for | {"page/index.html"}, "and nothing that is not asked for"
    for path in [*asked_for, "page/about.json", *(f"page/examples/{path.name}" for path in EXAMPLES.glob("*.png"))]:
        assert get(f"{server.http_url}/{path}")[0] == 200, path


def test_a_file_the_browser_knows_is_not_sent_again(server: ServerProcess) -> None:
    tag = get(f"{server.http_url}/page/main.js")[1]["ETag"]
    status, _, body = get(f"{server.http_url}/page/main.js", **{"If-None-Match": tag})
    assert (status, body) == (304, b"")
    assert get(f"{server.http_url}/page/main.js", **{"If-None-Match": '"other"'})[0] == 200


def test_the_page_can_be_switched_off(server: ServerProcess) -> None:
    assert f"page        {server.http_url}/" in server.welcome
    with ServerProcess("--page", "off") as without:
        assert [get(f"{without.http_url}{path}")[0] for path in ("/", "/page/main.js", "/page/about.json")] == [404] * 3
        assert get(f"{without.http_url}/openapi.json")[0] == 200
        assert f"{without.http_url}/\n" not in without.welcome
