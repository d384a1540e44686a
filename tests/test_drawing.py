"""`digitserve explain` draws what the server explains; every part of it, and says why where it cannot."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.__main__ import PARTS, main
from service.client import Client, Explanation
from service.commands.drawing import Row, page, tiles, written
from service.commands.drawing_details import convolution_rows, linear_rows, pooling_rows, relu_rows, strongest
from service.commands.drawing_flow import flow, verdict
from tests.conftest import REPOSITORY
from tests.server_process import ServerProcess

SEVEN = REPOSITORY / "service" / "examples" / "seven.png"


def run(*arguments: str | Path) -> int:
    """The exit code of the command."""
    with pytest.raises(SystemExit) as end:
        main(["explain", *map(str, arguments)])
    return int(end.value.code or 0)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_drawn(
    part: str, server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    assert run(SEVEN, "-o", out, "--part", part, "--address", server.grpc_address) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{SEVEN}: a 7, 9") and told.endswith(f"% sure; drawn in {out}\n")
    with Image.open(out) as image:
        pixels = np.asarray(image.convert("L"))
    assert image.format == "PNG" and image.width == 1500
    # Something is drawn in every part of the page.
    assert all((band < 200).any() for band in np.array_split(pixels, 5))


def test_the_same_explanation_gives_the_same_bytes(client: Client) -> None:
    explained = client.explain(SEVEN)
    assert page(flow(explained, "seven")) == page(flow(explained, "seven"))


def test_a_name_with_dollars_is_written_as_it_is(client: Client) -> None:
    explained = client.explain(SEVEN)
    assert page(flow(explained, "$\\x^{$.png")[:1]).startswith(b"\x89PNG")


def test_the_place_that_is_shown_is_where_the_filter_finds_most(client: Client) -> None:
    explained = client.explain(SEVEN)
    layer = explained.layers[0]
    spot = strongest(layer)
    assert layer.output[spot.channel, spot.row, spot.column] == layer.output.max()
    assert len(convolution_rows(explained)) == 1


def test_blank_paper_can_be_drawn(client: Client) -> None:
    explained = client.explain(np.zeros((28, 28), np.uint8))
    assert verdict(explained).endswith("not to be trusted: blank")
    assert page(flow(explained, "blank")).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nowhere.png", "-o", "out.png"), "nowhere.png: No such file or directory"),
        ((SEVEN, "-o", "out.jpg"), "out.jpg: the picture is a PNG file; give it a name that ends with .png"),
        ((SEVEN, "-o", "nowhere/out.png"), "nowhere/out.png: No such file or directory"),
        ((REPOSITORY / "README.md", "-o", "out.png"), "INVALID_ARGUMENT: the"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: tuple[str | Path, ...], text: str, server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--address", server.grpc_address) == 1
    assert text in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "service.commands.drawing", "service.commands.drawing_flow"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run(SEVEN, "-o", "out.png") == 1
    assert "matplotlib is not installed; run: pip install 'digitserve[explain]'" in capsys.readouterr().err


@pytest.mark.parametrize("draw", [convolution_rows, relu_rows, pooling_rows, linear_rows])
def test_a_network_without_such_a_layer_has_nothing_to_show(
    draw: Callable[[Explanation], list[Row]], client: Client
) -> None:
    explained = client.explain(SEVEN)
    bare = [dataclasses.replace(layer, kind="flatten", weights=None) for layer in explained.layers]
    assert draw(dataclasses.replace(explained, layers=tuple(bare))) == []


def test_what_is_not_there_cannot_be_drawn(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.commands.drawing_details.relu_rows", lambda explained: [])
    assert run(SEVEN, "-o", "out.png", "--part", "relu", "--address", server.grpc_address) == 1
    assert "the network that answered has nothing to show as 'relu'; try --part flow" in capsys.readouterr().err


def test_tiles_stand_beside_and_below_each_other() -> None:
    sheet = tiles(np.arange(12.0).reshape(3, 2, 2), 2)
    assert sheet.shape == (5, 5)
    np.testing.assert_array_equal(sheet[:2, :2], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(sheet[:2, 3:], [[4, 5], [6, 7]])
    np.testing.assert_array_equal(sheet[3:, :2], [[8, 9], [10, 11]])
    assert np.isnan(sheet[2]).all() and np.isnan(sheet[:, 2]).all() and np.isnan(sheet[3:, 3:]).all()


def test_numbers_are_written_with_a_minus_but_not_before_zero() -> None:
    assert written(-0.001) == "0.00" == written(0.004)
    assert written(-1.5) == "\N{MINUS SIGN}1.50" and written(1234.5, "{:,.1f}") == "1,234.5"
