"""docs/how-it-works.md tells the truth about the model file, and shows every picture that can be drawn."""

from __future__ import annotations

import math
import re

import pytest
from PIL import Image

from service.__main__ import PARTS
from service.explanation.layers import Layer, take_apart
from tests.conftest import REPOSITORY
from tests.server_process import ServerProcess

PAGE = REPOSITORY / "docs" / "how-it-works.md"
TEXT = PAGE.read_text()
MODEL = REPOSITORY / "models" / "digits" / "1" / "model.onnx"


def counted() -> list[list[str]]:
    """The rows of the table of parameters."""
    return [row.strip("|").split("|") for row in re.findall(r"^\| (?:[a-z]+\d? \| \d.*|together .*)$", TEXT, re.M)]


def number(cell: str) -> int:
    """What a cell comes to: "16 x 1 x 5 x 5 = 400" is 400, an empty one 0."""
    return int(cell.rpartition("=")[2].replace(",", "").strip() or 0)


def sizes(cell: str) -> tuple[int, ...]:
    return tuple(int(size) for size in cell.partition("=")[0].split("x"))


def multiplications(layer: Layer) -> int:
    """Each weight of a convolution at every place, each of a linear layer once."""
    if layer.weights is None:
        return 0
    return layer.weights.size * math.prod(layer.shape[1:])


def test_the_parameters_are_those_of_the_model_file() -> None:
    anatomy, _ = take_apart(MODEL.read_bytes())
    *rows, together = [[cell.strip() for cell in row] for row in counted()]
    assert [row[0] for row in rows] == [layer.name for layer in anatomy.layers]
    parameters = 0
    for (_, gives, weights, biases, sum_, products), layer in zip(rows, anatomy.layers, strict=True):
        assert sizes(gives) == layer.shape
        here = [0 if each is None else each.size for each in (layer.weights, layer.biases)]
        assert [number(weights), number(biases)] == here and number(sum_) == sum(here)
        if layer.weights is not None:
            assert sizes(weights) == layer.weights.shape
        assert number(products) == multiplications(layer)
        parameters += sum(here)
    assert number(together[4]) == parameters and number(together[5]) == sum(map(multiplications, anatomy.layers))
    assert f"makes {4 * parameters / 1000:.0f} kB of the model's file of {MODEL.stat().st_size / 1000:.0f} kB" in TEXT


def test_what_a_number_depends_on_grows_as_it_is_told() -> None:
    anatomy, _ = take_apart(MODEL.read_bytes())
    field, step, found = 1, 1, {}
    for layer in anatomy.layers:
        if layer.kernel:
            field, step = field + (layer.kernel[0] - 1) * step, step * layer.stride[0]
            found[layer.name] = field
    assert found == {"conv1": 5, "pool1": 6, "conv2": 10, "conv3": 14, "pool2": 16}
    told = re.search(
        r"One of conv1 sees (\d+) x.*after pooling (\d+) x.*conv2 (\d+) x.*conv3\s+(\d+) x.*pooling (\d+) x", TEXT, re.S
    )
    assert told and [*map(int, told.groups())] == [*found.values()]


def test_the_map_of_a_window_has_the_size_that_is_told() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", TEXT, re.M)
    assert len(rows) == 4
    for side, window, padding, stride, told in (map(int, row) for row in rows):
        assert (side + 2 * padding - window) // stride + 1 == told


@pytest.mark.parametrize("part", PARTS)
def test_every_picture_is_shown(part: str) -> None:
    assert f"](how-it-works/{part}.png)" in TEXT
    with Image.open(PAGE.parent / "how-it-works" / f"{part}.png") as image:
        assert image.width == 1500


def test_the_example_runs_as_it_is_written(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(code.replace("127.0.0.1:8001", server.grpc_address), {})
    assert capsys.readouterr().out.splitlines()[0] == "conv1 conv (16, 24, 24)"


def test_every_picture_that_is_shown_is_there() -> None:
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT):
        assert (PAGE.parent / path).is_file(), path
