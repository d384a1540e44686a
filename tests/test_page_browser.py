"""The page in a real browser: tests/browser/visit.cjs goes there, and what it saw is judged here."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.browser.scripts import run_script
from tests.conftest import REPOSITORY
from tests.server_process import ServerProcess

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]
Values = npt.NDArray[np.float32]
Seen = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One server; which implementation of gRPC it has is nothing to the page."""
    with ServerProcess() as process:
        yield process


@pytest.fixture(scope="module")
def seen(server: ServerProcess) -> Seen:
    """What a visitor saw who drew 3, 4 and 7, looked inside, compared and pasted a five."""
    visit: Seen = run_script("visit.cjs", f"{server.http_url}/", REPOSITORY / "service" / "examples" / "five.png")
    return visit


@pytest.fixture(scope="module")
def layers(server: ServerProcess, seen: Seen) -> dict[str, dict[str, Any]]:
    """The layers of the explanation that the inside view showed, by name, as the server gives them to anybody."""
    (encoded,) = re.findall(r'"""\n(.*?)\n"""', seen["Python"], re.DOTALL)
    request = urllib.request.Request(f"{server.http_url}/v1/explain", data=base64.b64decode(encoded))
    with urllib.request.urlopen(request, timeout=30) as response:
        explanation = json.load(response)
    return {layer["name"]: layer for layer in explanation["layers"]}


def array(tensor: dict[str, Any]) -> Values:
    values: Values = np.frombuffer(base64.b64decode(tensor["values"]), "<f4").reshape(tensor["shape"])
    return values


def index(name: str) -> int:
    """Which map "Map 3" is, from 0."""
    (number,) = re.findall(r"^Map (\d+)", name)
    return int(number) - 1


@pytest.mark.parametrize("digit", [3, 4, 7])
def test_a_digit_drawn_with_the_mouse_is_read(seen: Seen, digit: int) -> None:
    drawn = seen["drawn"][str(digit)]
    assert re.fullmatch(rf"A {digit}, (very|quite|fairly) sure", drawn["verdict"])
    shares = [float(share.rstrip(" %")) for share in drawn["shares"]]
    assert len(shares) == 10 and max(shares) == shares[digit] and sum(shares) == pytest.approx(100, abs=0.6)


def test_a_sheet_that_is_cleared_during_a_stroke_stays_empty(seen: Seen) -> None:
    """What complains on the way is found by the test of complaints."""
    assert seen["cleared"] == "Nothing drawn yet"


def test_a_picture_that_is_pasted_is_read(seen: Seen) -> None:
    assert seen["pasted"].startswith("A 5, ")


def test_a_digit_can_be_drawn_with_keys_alone(seen: Seen) -> None:
    assert seen["byKeys"].startswith("A 1, ")


@pytest.mark.parametrize("name", ["conv1", "conv3"])
def test_the_products_of_a_pixel_sum_to_its_value(seen: Seen, layers: dict[str, dict[str, Any]], name: str) -> None:
    shown, layer = seen["inside"][name], layers[name]
    map, row, column = index(shown["map"]), shown["row"], shown["column"]
    kernel, bias = array(layer["weights"])[map].astype(float), array(layer["biases"])[map]
    before = list(layers)[list(layers).index(name) - 1] if name != "conv1" else None
    inputs = array(layers[before]["output"]) if before else None
    patch, weights, products = (np.array(table) for table in shown["tables"])
    source = index(shown["source"]) if inputs is not None else 0
    assert weights == pytest.approx(kernel[source].ravel(), abs=1e-6)
    assert products == pytest.approx(patch * weights, abs=1e-12)
    assert products.sum() == pytest.approx(shown["terms"]["part"], abs=1e-12)
    if inputs is not None:
        height, width = layer["kernel"]
        window = inputs[:, row : row + height, column : column + width].astype(float)
        assert patch == pytest.approx(window[source].ravel(), abs=1e-6)
        assert shown["sources"] == pytest.approx((window * kernel).sum((1, 2)), abs=1e-6)
    total = sum(shown["sources"] or products)
    assert total + shown["terms"]["bias"] == pytest.approx(shown["terms"]["value"], abs=1e-4)
    assert shown["terms"]["bias"] == pytest.approx(bias, abs=1e-6)
    assert shown["terms"]["value"] == pytest.approx(array(layer["output"])[map, row, column], abs=1e-6)
    assert shown["terms"]["relu"] == max(0, shown["terms"]["value"])


def test_a_pooled_pixel_shows_its_window(seen: Seen, layers: dict[str, dict[str, Any]]) -> None:
    shown = seen["inside"]["pool1"]
    map, row, column = index(shown["map"]), shown["row"], shown["column"]
    window = array(layers["relu1"]["output"])[map, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    assert shown["tables"] == [pytest.approx(window.ravel(), abs=1e-6)]
    assert shown["terms"]["value"] == max(shown["tables"][0])


def test_the_outputs_and_the_probabilities(seen: Seen, layers: dict[str, dict[str, Any]]) -> None:
    assert seen["inside"]["fc2"]["value"] == pytest.approx(array(layers["fc2"]["output"])[7], abs=1e-4)
    assert seen["inside"]["fc2"]["sentence"].startswith("Digit 7 is ")
    assert seen["inside"]["softmax"].startswith("7\t")


def test_the_arrow_keys_go_from_pixel_to_pixel(seen: Seen) -> None:
    assert seen["inside"]["conv3"]["sentence"].startswith("Row 4, column 6 of ")
    assert seen["inside"]["byKey"].startswith("Row 4, column 7 of ")


def test_two_drawings_are_compared(seen: Seen) -> None:
    assert re.fullmatch(r"(Both are read as 7|Read as 7 and as \d)\. Pixel by pixel .* alike\.", seen["compared"])


@pytest.mark.parametrize(("language", "command"), [("curl", ["sh"]), ("Python", [sys.executable, "-"])])
def test_the_request_that_is_copied_works_elsewhere(seen: Seen, language: str, command: list[str]) -> None:
    done = subprocess.run(command, input=seen[language], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["digit"] if language == "curl" else int(done.stdout[0])) == 7


def test_the_page_tells_who_answers(seen: Seen) -> None:
    assert re.fullmatch(r"version \S+ · model digits/1 · CPUExecutionProvider", seen["about"])


def test_nothing_is_asked_of_another_host_and_nothing_complains(server: ServerProcess, seen: Seen) -> None:
    hosts = {urlsplit(url.removeprefix("blob:")).netloc for url in seen["requests"] if not url.startswith("data:")}
    assert hosts == {urlsplit(server.http_url).netloc}
    assert seen["complaints"] == []


def test_what_is_no_picture_gets_no_answer_but_the_reason(seen: Seen) -> None:
    assert seen["refused"].startswith("the 10 bytes are no image the server can read")


@pytest.mark.parametrize(("theme", "width", "is_light"), [("light", 1280, True), ("dark", 390, False)])
def test_the_page_follows_the_theme_and_the_width(seen: Seen, theme: str, width: int, is_light: bool) -> None:
    with Image.open(io.BytesIO(base64.b64decode(seen[theme]))) as picture:
        assert picture.width == width
        brightness = np.asarray(picture.convert("L")).mean()
    assert brightness > 200 if is_light else brightness < 90


@pytest.mark.parametrize("view", ["empty", "maps", "units", "dark phone"])
def test_there_are_no_serious_barriers(seen: Seen, view: str) -> None:
    assert [found for found in seen["barriers"][view] if found["impact"] in ("serious", "critical")] == []


def test_a_phone_does_not_have_to_scroll_sideways(seen: Seen) -> None:
    assert seen["wider"] == 0
