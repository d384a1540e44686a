"""What a request of the Open Inference Protocol may hold; checked without a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import grpc_service_pb2 as pb
from service.errors import CallError, InvalidRequest, NotImplementedYet
from service.open_inference.tensors import classes, join_bytes, read_files, read_pixels, split_bytes, whole_number

ONE = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 28, 28]}


def request(*inputs: dict[str, Any], raw: list[bytes] | None = None) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        model_name="m",
        inputs=[pb.ModelInferRequest.InferInputTensor(**each) for each in inputs],
        raw_input_contents=raw or [],
    )


def fp32(*values: float, **parameters: int) -> pb.ModelInferRequest:
    """One FP32 image that begins with these values."""
    image = np.zeros(784, np.float32)
    image[: len(values)] = values
    given = {name: pb.InferParameter(int64_param=value) for name, value in parameters.items()}
    return request({**ONE, "datatype": "FP32", "parameters": given}, raw=[image.tobytes()])


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (request(), "takes one input, 'image'; the request has none"),
        (request(ONE, ONE, raw=[bytes(784)] * 2), "the request has 'image', 'image'"),
        (request({**ONE, "name": "x"}), "the request has 'x'"),
        (request(*[{**ONE, "name": "y" * 99}] * 9), "and 5 more"),
        (request({**ONE, "datatype": "INT64"}), "has datatype 'INT64'; expected UINT8, or FP32"),
        (request({**ONE, "shape": [1, 28, 28]}), "Expected [-1,1,28,28], got [1,28,28]; the first dimension is"),
        (request({**ONE, "shape": [28, 28]}), "got [28,28]"),
        (request({**ONE, "shape": []}), "got []"),
        (request({**ONE, "shape": [0, 1, 28, 28]}), "got [0,1,28,28]"),
        (request({**ONE, "shape": [-1, 1, 28, 28]}), "got [-1,1,28,28]"),
        (
            request({**ONE, "shape": [2**62, 1, 28, 28]}, raw=[bytes(784)]),
            "images, the limit is 8 (--max-batch-images)",
        ),
        (request(ONE, raw=[bytes(783)]), "has 783 bytes of raw contents; its shape [1,1,28,28] needs 784"),
        (request(ONE, raw=[bytes(784), b""]), "raw_input_contents has 2 items for 1 input"),
        (
            request({**ONE, "contents": {"int_contents": [1]}}, raw=[bytes(784)]),
            "both typed contents and raw_input_contents",
        ),
        (request({**ONE, "contents": {"uint_contents": [1]}}), "has 1 values in uint_contents"),
        (request({**ONE, "contents": {"int_contents": [1] * 784}}), "has 0 values in uint_contents"),
        (request({**ONE, "contents": {"uint_contents": [256] * 784}}), "holds the value 256; expected 0 to 255"),
        (fp32(256), "values from 0 to 256; expected 0 (paper) to 255 (ink)"),
        (fp32(-1), "values from -1 to 0"),
        (fp32(float("nan")), "values from nan to nan"),
        (fp32(float("inf")), "to inf"),
        (fp32(1), "holds no value above 1, of 255 for ink"),
        (fp32(2, pixel_max=1), "expected 0 (paper) to 1 (ink)"),
        (fp32(2, pixel_max=100), "the parameter 'pixel_max' is 100; expected 255, or 1"),
    ],
)
def test_pixels_that_are_not_acceptable(bad: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read_pixels(bad, 8)
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (request(ONE, raw=[bytes(784)]), "has datatype 'UINT8'; expected BYTES"),
        (request({**ONE, "datatype": "BYTES", "shape": [1, 2]}), "Expected [-1], got [1,2]"),
        (request({**ONE, "datatype": "BYTES", "shape": []}), "Expected [-1], got []"),
        (request({**ONE, "datatype": "BYTES", "shape": [0]}), "Expected [-1], got [0]"),
        (request({**ONE, "datatype": "BYTES", "shape": [2]}, raw=[join_bytes([b"x"])]), "[2] and holds 1 elements"),
        (request({**ONE, "datatype": "BYTES", "shape": [2**62]}), "images, the limit is 8 (--max-batch-images)"),
        (request({**ONE, "datatype": "BYTES", "shape": [1]}, raw=[bytes(8)]), "shape [1] and holds more elements"),
        (request({**ONE, "datatype": "B" * 20_000, "shape": [1]}), "BBB'; expected BYTES"),
        (request({**ONE, "datatype": "BYTES", "shape": [1]}, raw=[b"\1\0"]), "ends within the 4 bytes"),
        (request({**ONE, "datatype": "BYTES", "shape": [1]}, raw=[b"\2\0\0\0x"]), "2 bytes, 1 are left"),
    ],
)
def test_files_that_are_not_acceptable(bad: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read_files(bad, 8)
    assert text in str(error.value)


def test_what_mlserver_and_its_codecs_write_besides() -> None:
    assert read_pixels(request({**ONE, "contents": {}}, raw=[bytes(784)]), 8).shape == (1, 1, 28, 28)
    two = request({**ONE, "datatype": "BYTES", "shape": [2, 1]}, raw=[join_bytes([b"x", b"yz"])])
    assert read_files(two, 8) == [b"x", b"yz"]


def test_shared_memory_is_not_there() -> None:
    parameters = {"shared_memory_region": pb.InferParameter(string_param="r")}
    with pytest.raises(NotImplementedYet):
        read_pixels(request({**ONE, "parameters": parameters}), 8)


def test_faint_floats_are_taken_when_the_caller_says_what_they_mean() -> None:
    assert read_pixels(fp32(1, pixel_max=255), 8).max() == 1
    assert read_pixels(fp32(0.5, pixel_max=1), 8).max() == 128
    assert read_pixels(fp32(0), 8).max() == 0
    assert read_pixels(fp32(254.6), 8).max() == 255


def test_the_request_may_say_for_its_input_what_full_ink_is() -> None:
    of_request = fp32(0.5)
    of_request.parameters["pixel_max"].int64_param = 1
    assert read_pixels(of_request, 8).max() == 128
    both = fp32(2, pixel_max=255)
    both.parameters["pixel_max"].int64_param = 1
    assert read_pixels(both, 8).max() == 2


def test_what_a_caller_sends_is_not_repeated_at_length() -> None:
    for shape in ([1] * 100_000, [9] * 5):
        with pytest.raises(InvalidRequest) as error:
            read_pixels(request({**ONE, "shape": shape}), 8)
        assert len(str(error.value)) < 200


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_bytes_come_back_as_they_were(elements: list[bytes]) -> None:
    assert split_bytes(join_bytes(elements), len(elements)) == elements


@given(
    st.binary(max_size=1600),
    st.sampled_from(["UINT8", "FP32", "BYTES"]),
    st.lists(st.integers(-(2**63), 2**63 - 1)) | st.just([1, 1, 28, 28]),
)
def test_no_request_raises_anything_but_our_errors(raw: bytes, datatype: str, shape: list[int]) -> None:
    for read in (read_pixels, read_files):
        try:
            assert len(read(request({"name": "image", "datatype": datatype, "shape": shape}, raw=[raw]), 1024)) > 0
        except CallError as error:
            assert str(error)


@pytest.mark.parametrize("value", [{"string_param": "1"}, {"double_param": 1.5}, {"bool_param": True}, {}])
def test_a_parameter_that_is_no_whole_number(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="expected a whole number, an int64_param"):
        whole_number({"timeout": pb.InferParameter(**value)}, "timeout")


def test_classes_are_the_most_probable_first() -> None:
    probabilities = np.zeros((2, 10), np.float32)
    probabilities[0, 3], probabilities[0, 5], probabilities[1, 9] = 0.75, 0.25, 1
    assert classes(probabilities, 2) == [b"0.750000:3:3", b"0.250000:5:5", b"1.000000:9:9", b"0.000000:0:0"]
