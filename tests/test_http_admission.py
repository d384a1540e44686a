"""What a page of another site has its visitor's browser send is refused; programs and the page are answered."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY
from tests.server_process import ServerProcess

EXAMPLE = (REPOSITORY / "service" / "examples" / "seven.png").read_bytes()
ADDRESSES = json.loads((REPOSITORY / "service" / "over_http" / "openapi.json").read_text())["paths"]
POSTED = sorted(path for path, operations in ADDRESSES.items() if "post" in operations)
UNLOAD = "/v2/repository/models/digits/unload"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One whose model everybody who is answered may take away."""
    with ServerProcess("--model-control", "explicit") as process:
        yield process


def post(server: ServerProcess, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """The status, and the error if it is one."""
    request = urllib.request.Request(f"{server.http_url}{path}", body, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://other.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://other.example"},
        {"Origin": "null"},
    ],
    ids=["another site", "another port", "an old browser", "a file or a frame without origin"],
)
def test_nothing_is_done_for_pages_of_other_sites(server: ServerProcess, path: str, headers: dict[str, str]) -> None:
    before = server.metric("digitserve_turned_away_total", port="http")
    status, error = post(server, path.format(model="digits", version="1"), b"", headers)
    assert status == 403 and error.startswith("a page of another site asks for this")
    assert server.metric("digitserve_turned_away_total", port="http") == before + 1
    assert post(server, "/v1/classify", EXAMPLE) == (200, ""), "the model is still there"


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_page_of_this_server_is_answered(server: ServerProcess, site: str) -> None:
    assert post(server, "/v1/classify", EXAMPLE, {"Origin": server.http_url, "Sec-Fetch-Site": site}) == (200, "")
    # Over plain HTTP from another machine, browsers say the origin alone.
    assert post(server, "/v1/classify", EXAMPLE, {"Origin": server.http_url}) == (200, "")


def test_a_proxy_that_gives_another_host_may_leave_what_the_browser_said(server: ServerProcess) -> None:
    headers = {"Origin": "https://digits.example", "Sec-Fetch-Site": "same-origin"}
    assert post(server, "/v1/classify", EXAMPLE, headers) == (200, "")


def test_anybody_may_look(server: ServerProcess) -> None:
    """A link on another site leads to the page."""
    request = urllib.request.Request(f"{server.http_url}/", headers={"Sec-Fetch-Site": "cross-site"})
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200


def test_programs_say_nothing_and_are_answered(server: ServerProcess) -> None:
    assert post(server, UNLOAD) == (200, "")
    assert post(server, "/v1/classify", EXAMPLE)[0] == 503
    assert post(server, UNLOAD.replace("unload", "load")) == (200, "")
    assert post(server, "/v1/classify", EXAMPLE) == (200, "")
