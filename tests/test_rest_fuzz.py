"""Bodies of REST requests that nobody meant: each is read, or refused in words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import CallError
from service.open_inference.tensors import read_files, read_pixels
from service.over_http.rest_tensors import read_request
from tests.pictures import Pixels

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(2**64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
# Where a value is looked for, most of the time one that might be there.
PARAMETERS = JSON | st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "priority", "pixel_max", "x"]),
    JSON | st.sampled_from([0, 1, 784, 3136, True, False]),
    max_size=3,
)
SHAPE = JSON | st.sampled_from([[1, 1, 28, 28], [2, 1, 28, 28], [1], [], [-1, 1, 28, 28], [2**62, 1, 28, 28]])
DATA = JSON | st.sampled_from([[0] * 784, [[[[0.5] * 28] * 28]], ["iVBOR"], ["aGVsbG8="], [1e300] * 784])


def fields(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have some of these fields."""
    return st.fixed_dictionaries({}, optional=values)


INPUT = fields(
    name=JSON | st.just("image"),
    datatype=JSON | st.sampled_from(["UINT8", "FP32", "BYTES", "INT64"]),
    shape=SHAPE,
    parameters=PARAMETERS,
    data=DATA,
)
OUTPUT = fields(name=JSON | st.sampled_from(["probabilities", "digit_score"]), parameters=PARAMETERS)
REQUEST = fields(
    id=JSON,
    parameters=PARAMETERS,
    inputs=JSON | st.lists(INPUT, min_size=1, max_size=2),
    outputs=JSON | st.lists(OUTPUT, max_size=2),
)


@settings(max_examples=300)
@given(REQUEST | JSON, st.binary(max_size=10) | st.sampled_from([bytes(784), bytes(3136)]), st.integers(-3, 3))
def test_any_json_and_any_bytes_after_it_are_read_or_refused(document: Any, tensors: bytes, off: int) -> None:
    text = json.dumps(document).encode()
    for json_bytes in (None, len(text), len(text) + off):
        try:
            message, _ = read_request(text + tensors, json_bytes, "digits", "")
        except CallError as error:
            assert str(error) and len(str(error)) < 400
            continue
        for read in (read_pixels, read_files):
            try:
                read(message, 8)
            except CallError as error:
                assert len(str(error)) < 400


def test_binary_tensors_arrive_as_they_are(digits: tuple[Pixels, Pixels]) -> None:
    image = digits[0][0]
    shape = [1, 1, 28, 28]
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "parameters": {"binary_data_size": 784}}
    document = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    text = json.dumps(document).encode()
    message, binary = read_request(text + image.tobytes(), len(text), "digits", "")
    assert np.array_equal(read_pixels(message, 8)[0, 0], image) and binary == {""}
