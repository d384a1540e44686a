"""I11: how many fields a message has, told before it is parsed."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from protos import grpc_service_pb2 as pb
from service.over_grpc.reading import reader
from service.over_grpc.wire import GROUP, has_too_many_fields, inside


@given(st.builds(pb.ModelInferRequest, id=st.text(), raw_input_contents=st.lists(st.binary(max_size=300), max_size=9)))
def test_i11_fields_are_counted_without_parsing(request: pb.ModelInferRequest) -> None:
    """Beside those of other types: a fixed one of 4 bytes, one of 8, and a number."""
    data = request.SerializeToString() + b"\x8d\x06abcd" + b"\x91\x06abcdefgh" + b"\x98\x06\xff\x7f"
    fields = bool(request.id) + len(request.raw_input_contents) + 3
    assert not has_too_many_fields(data, fields)
    assert has_too_many_fields(data, fields - 1)
    # What is cut short, or has no known type, is left to the parser.
    assert not has_too_many_fields(data[:-1], fields)
    assert not has_too_many_fields(b"\x0e" + data, 1)


class Watched(bytes):
    """Bytes that count how often one of them is looked at."""

    looks = 0

    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        return super().__getitem__(place)


def groups(inside: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Fields one after the other, and such in a group."""
    several = st.lists(inside, max_size=5).map(b"".join)
    return several | several.map(lambda data: b"\x0b" + data + b"\x0c")


def count(fields: Any) -> int:
    """Of all fields that the parser found; a group has two ends, and fields of its own."""
    return sum(2 + count(each.data) if each.wire_type == GROUP else 1 for each in fields)


ONE = [b"\x12\0", b"\x12\x03abc", b"\x98\x06\xff\x7f", b"\x8d\x06abcd", b"\x91\x06abcdefgh", b"\x13\x14"]


@given(st.recursive(st.sampled_from(ONE), groups) | st.binary(max_size=12))
def test_i11_the_fields_of_groups_count_and_no_byte_is_looked_at_twice(data: bytes) -> None:
    """Whatever the parser takes is counted to its end, as the parser itself would."""
    watched = Watched(data)
    try:
        fields = count(UnknownFieldSet(Empty.FromString(data)))
    except DecodeError:
        has_too_many_fields(watched, len(data))
    else:
        assert not has_too_many_fields(watched, fields)
        assert has_too_many_fields(data, fields - 1) == bool(data)
    # One look more finds that there is no byte.
    assert watched.looks <= len(data) + 1


@pytest.mark.parametrize("before", [b"", b"\x0a", b"\x98\x06"], ids=["tag", "length", "number"])
def test_i11_a_number_that_goes_on_for_megabytes_is_left_to_the_parser(before: bytes) -> None:
    """Put together, it would hold the event loop for most of an hour, and the test would end by its time limit."""
    assert not has_too_many_fields(before + b"\xff" * (8 << 20))


Tensor = pb.ModelInferRequest.InferInputTensor
SHAPES = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40)
CONTENTS = st.builds(pb.InferTensorContents, bytes_contents=st.lists(st.binary(max_size=9), max_size=9))
TENSORS = st.builds(Tensor, name=st.text(max_size=9), shape=SHAPES, contents=CONTENTS)


@given(st.lists(TENSORS, max_size=5), st.lists(st.binary(max_size=9), max_size=5))
def test_i11_fields_of_known_messages_count_wherever_they_are(inputs: list[Any], raw: list[bytes]) -> None:
    """Packed numbers count as one field for every eight bytes, besides the field they are in."""
    data = pb.ModelInferRequest(inputs=inputs, raw_input_contents=raw).SerializeToString()
    fields = len(inputs) + len(raw)
    for each in inputs:
        packed = len(Tensor(shape=each.shape).SerializeToString())
        # Without its tag and its length, of which there are two bytes from 128 on.
        packed -= 3 if packed > 129 else 2
        fields += bool(each.name) + len(each.contents.bytes_contents) + 1
        fields += 1 + packed // 8 if each.shape else 0
    within = inside(pb.ModelInferRequest.DESCRIPTOR)
    assert not has_too_many_fields(data, fields, within)
    assert has_too_many_fields(data, fields - 1, within) == bool(data)


def field(number: int, data: bytes) -> bytes:
    """A field of bytes, or of a message."""
    length = len(data)
    return (
        bytes((number << 3 | 2, length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 127 | 128, length >> 21))
        + data
    )


PARAMETERS = b"".join(field(4, field(1, b"%x" % n)) for n in range(80_000))


@pytest.mark.parametrize(
    "much",
    [
        field(5, field(3, bytes(1 << 20))),
        field(5, field(5, field(3, bytes(1 << 20)))),
        field(5, field(5, b"\x42\0" * 80_000)),
        field(5, PARAMETERS),
        field(5, b"") * 40_000 + field(5, field(5, b"\x42\0" * 40_000)),
        field(6, PARAMETERS.replace(b"\x22", b"\x1a")),
    ],
    ids=[
        "shape",
        "int64_contents",
        "bytes_contents",
        "parameters",
        "inputs and bytes_contents",
        "parameters of outputs",
    ],
)
def test_i11_inferences_are_refused_for_what_is_inside_of_their_fields(much: bytes) -> None:
    """Parsed, 8 MB of it took up to 272."""
    read = reader(pb.ModelInferRequest.FromString, max_message_bytes=8 << 20)
    assert "more than 70000 fields" in str(read(field(1, b"digits_image") + much))
