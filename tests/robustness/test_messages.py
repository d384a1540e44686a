"""I8 to I13: messages that are no messages, tensors that are no tensors, and faults of ours, on each transport."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import digits_pb2, grpc_service_pb2
from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.robustness import http2
from tests.server_process import ServerProcess

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
SERVICES = [
    service
    for file in (digits_pb2, grpc_service_pb2, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS = [(f"/{service.full_name}/{method.name}", method) for service in SERVICES for method in service.methods]
# An unknown group, so deep that every parser gives up; a length beyond the end; the wrong type; a broken tag.
NO_MESSAGES = [b"\x0b" * 200 + b"\x0c" * 200, b"\x0a\x7f", b"\x0a\xff\xff\xff\xff\x07", b"\x07", b"\xff" * 64]


def sent(
    channel: grpc.Channel, path: str, *requests: bytes, compression: grpc.Compression | None = None
) -> list[bytes]:
    """The answers to requests of these bytes; every kind of call looks like this one on the wire."""
    call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path, None, None)
    return list(call(iter(requests), timeout=60, compression=compression))


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


def reveals_nothing(text: str) -> bool:
    """Whether a text shows no class, path or traceback of the server's."""
    return not any(word in text for word in ("Error", "Exception", "Traceback", ".py", "/work", "<class", "google."))


@pytest.mark.parametrize("path", [path for path, _ in METHODS])
def test_i12_what_is_no_message_is_an_invalid_argument(path: str, channel: grpc.Channel) -> None:
    for request in NO_MESSAGES:
        if path.endswith("ClassifyStream"):
            (answer,) = sent(channel, path, request)
            error = digits_pb2.ClassifyStreamResponse.FromString(answer).error
            code, text = error.code, error.message
            assert code == INVALID.value[0]
        elif path.endswith("ModelStreamInfer"):
            (answer,) = sent(channel, path, request)
            text = pb.ModelStreamInferResponse.FromString(answer).error_message
        else:
            with pytest.raises(grpc.RpcError) as raised:
                sent(channel, path, request)
            assert raised.value.code() == INVALID
            text = raised.value.details() or ""
        assert "are no message of the type this call takes" in text and reveals_nothing(text)


@pytest.mark.parametrize(
    "path", ["/digits.v1.DigitClassifier/Nothing", "/nothing.Here/Classify", "/", "//", "/digits.v1"]
)
def test_i12_unknown_methods_are_unimplemented(path: str, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        sent(channel, path, b"")
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_i12_text_that_is_no_utf8(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        sent(channel, "/inference.GRPCInferenceService/ModelReady", b"\x0a\x02\xff\xfe")
    assert raised.value.code() == INVALID
    for path in ("Check", "Watch"):
        with pytest.raises(grpc.RpcError) as raised:
            sent(channel, f"/grpc.health.v1.Health/{path}", b"\x0a\x02\xff\xfe")
        assert raised.value.code() == INVALID


@pytest.mark.parametrize("path", [http2.CLASSIFY, "/inference.GRPCInferenceService/ModelInfer"])
def test_i10_a_gzip_bomb_is_refused(path: str, channel: grpc.Channel) -> None:
    """32 kB that would unpack to 32 MiB; what 1 GiB of it takes of memory, `chaos` prints."""
    with pytest.raises(grpc.RpcError) as raised:
        sent(channel, path, bytes(32 << 20), compression=grpc.Compression.Gzip)
    assert raised.value.code() == EXHAUSTED
    assert sent(channel, "/grpc.health.v1.Health/Check", b"")


def test_i10_a_compressed_message_is_read(channel: grpc.Channel) -> None:
    request = digits_pb2.ClassifyRequest(format=digits_pb2.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
    (answer,) = sent(channel, http2.CLASSIFY, request.SerializeToString(), compression=grpc.Compression.Gzip)
    assert digits_pb2.ClassifyResponse.FromString(answer).prediction.rejection_reason == "blank"


def test_i10_a_message_of_one_byte_too_many(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        sent(channel, http2.CLASSIFY, digits_pb2.ClassifyRequest(image=bytes(16 << 20)).SerializeToString())
    assert raised.value.code() == EXHAUSTED


def test_health_lists_what_it_would_say_of_each_service(channel: grpc.Channel) -> None:
    """A method that nobody wrote would be a fault of ours, with a traceback in the log for whoever asks."""
    (data,) = sent(channel, "/grpc.health.v1.Health/List", b"")
    statuses = health_pb2.HealthListResponse.FromString(data).statuses  # type: ignore[attr-defined]
    assert {"", "digits.v1.DigitClassifier"} <= statuses.keys()
    for name, status in statuses.items():
        request = health_pb2.HealthCheckRequest(service=name).SerializeToString()
        assert sent(channel, "/grpc.health.v1.Health/Check", request) == [status.SerializeToString()]


TOO_MANY = "the request message has more than 70000 fields; no call takes as many"


@pytest.mark.parametrize("path", [http2.CLASSIFY, "/digits.v1.DigitClassifier/ClassifyBatch"])
def test_i11_a_million_fields_are_refused(path: str, channel: grpc.Channel) -> None:
    """Two bytes each: an empty `images`, or a field that does not exist; behind or in a group, too."""
    many = b"\x12\0" * (2 << 20)
    for data in (many, b"\x0b\x0c" + many, b"\x0b" + many + b"\x0c"):
        with pytest.raises(grpc.RpcError) as raised:
            sent(channel, path, data)
        assert raised.value.code() == INVALID
        assert raised.value.details() == TOO_MANY
    with pytest.raises(grpc.RpcError) as raised:
        sent(channel, "/inference.GRPCInferenceService/ModelInfer", b"\x0a\x06digits" + b"\x2a\0" * (2 << 20))
    assert raised.value.code() == INVALID
    assert raised.value.details() == TOO_MANY


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_i8_i9_any_tensor_is_answered_or_refused_in_words(channel: grpc.Channel, data: st.DataObject) -> None:
    request = data.draw(tensors())
    try:
        response = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    except grpc.RpcError as error:
        assert error.code() in (INVALID, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
        assert reveals_nothing(error.details() or "")
    else:
        assert response.outputs


def tensors() -> st.SearchStrategy[pb.ModelInferRequest]:
    """Requests that are nearly right: names, datatypes, shapes and contents each as they should be, or not."""
    odd = st.sampled_from([0, -1, 2, 10, 28, 784, 1025, 2**31, 2**63 - 1, -(2**63)])
    shape = st.one_of(st.sampled_from([[1, 1, 28, 28], [2, 1, 28, 28], [1], [2]]), st.lists(odd, max_size=6))
    size = st.one_of(st.sampled_from([784, 1568, 3136, 0]), st.integers(0, 4000))
    floats = st.one_of(
        st.just(struct.pack("<f", 9.0)), st.sampled_from([b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff" * 4])
    )
    raw = st.one_of(st.builds(bytes, size), st.builds(lambda value, n: value * n, floats, st.just(784)))
    contents = st.one_of(
        st.builds(
            lambda n, v: pb.InferTensorContents(uint_contents=[v] * n), size, st.sampled_from([0, 255, 256, 2**32 - 1])
        ),
        st.builds(lambda v: pb.InferTensorContents(fp32_contents=[v] * 784), st.sampled_from([0.0, 9.0, 1e9])),
        st.builds(lambda n: pb.InferTensorContents(bytes_contents=[b"x"] * n), st.integers(0, 3)),
        st.just(pb.InferTensorContents(int64_contents=[1])),
    )
    names = st.sampled_from(["image", "image", "image", "", "input", "x" * 5000, "../../etc/passwd"])
    datatypes = st.sampled_from(["UINT8", "UINT8", "FP32", "BYTES", "INT64", "", "a" * 5000])
    parameter = st.sampled_from(
        [pb.InferParameter(int64_param=n) for n in (1, -1, 2**62)] + [pb.InferParameter(string_param="x")]
    )
    parameters = st.dictionaries(
        st.sampled_from(["pixel_max", "priority", "timeout", "sequence_id", "other"]), parameter
    )
    plain = st.builds(pb.ModelInferRequest.InferInputTensor, name=names, datatype=datatypes, shape=shape)
    typed = st.builds(
        pb.ModelInferRequest.InferInputTensor, name=names, datatype=datatypes, shape=shape, contents=contents
    )
    inputs = st.lists(st.one_of(plain, typed), min_size=0, max_size=3)
    outputs = st.lists(
        st.builds(
            pb.ModelInferRequest.InferRequestedOutputTensor,
            name=st.sampled_from(["probabilities", "digit_score", "image", "x" * 5000]),
            parameters=parameters,
        ),
        max_size=3,
    )
    models = st.sampled_from(["digits", "digits", "digits_image", "", "../../x", "x" * 10_000])
    return st.builds(
        pb.ModelInferRequest,
        model_name=models,
        inputs=inputs,
        outputs=outputs,
        raw_input_contents=st.lists(raw, max_size=2),
        parameters=parameters,
    )


@pytest.mark.parametrize(
    ("shape", "datatype", "raw", "words"),
    [
        ([1, 1, 28], "UINT8", 784, "unexpected shape"),
        ([28, 28], "UINT8", 784, "unexpected shape"),
        ([0, 1, 28, 28], "UINT8", 0, "unexpected shape"),
        ([-1, 1, 28, 28], "UINT8", 784, "unexpected shape"),
        ([1025, 1, 28, 28], "UINT8", 1025 * 784, "the limit is 1024"),
        ([2**63 - 1, 1, 28, 28], "UINT8", 784, "the limit is 1024"),
        ([2**32, 2**32, 28, 28], "UINT8", 0, "unexpected shape"),
        ([1, 1, 28, 28], "INT8", 784, "datatype"),
        ([1, 1, 28, 28], "UINT8", 783, "needs 784"),
        ([1, 1, 28, 28], "UINT8", 785, "needs 784"),
        ([1, 1, 28, 28], "FP32", 784, "needs 3136"),
    ],
)
def test_i8_our_own_check_fires_first(
    shape: list[int], datatype: str, raw: int, words: str, server: ServerProcess, channel: grpc.Channel
) -> None:
    before = server.metric("digitserve_batch_images_sum")
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype=datatype, shape=shape)
    request = pb.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=[bytes(raw)])
    with pytest.raises(grpc.RpcError) as raised:
        GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    assert raised.value.code() == INVALID and words in (raised.value.details() or "")
    assert server.metric("digitserve_batch_images_sum") == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0, 256.0, 1e38])
def test_i9_numbers_that_are_no_pixels_never_reach_the_model(
    value: float, server: ServerProcess, channel: grpc.Channel
) -> None:
    before = server.metric("digitserve_batch_images_sum")
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=[1, 1, 28, 28])
    pixels = [9.0] * 783 + [value]
    for typed in (True, False):
        request = pb.ModelInferRequest(model_name="digits", inputs=[tensor])
        if typed:
            request.inputs[0].contents.fp32_contents.extend(pixels)
        else:
            request.raw_input_contents.append(struct.pack("<784f", *pixels))
        with pytest.raises(grpc.RpcError) as raised:
            GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
        assert raised.value.code() == INVALID and "expected 0 (paper) to 255" in (raised.value.details() or "")
    assert server.metric("digitserve_batch_images_sum") == before


def test_i8_both_contents_two_inputs_and_unasked_contents(channel: grpc.Channel) -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 1, 28, 28])
    typed = pb.ModelInferRequest.InferInputTensor()
    typed.CopyFrom(tensor)
    typed.contents.uint_contents.extend([0] * 784)
    for inputs, raw in itertools.product(([tensor, tensor], [typed], [tensor], []), ([], [bytes(784)] * 2)):
        request = pb.ModelInferRequest(model_name="digits", inputs=inputs, raw_input_contents=raw)
        if inputs == [typed] and not raw:
            continue
        with pytest.raises(grpc.RpcError) as raised:
            GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
        assert raised.value.code() == INVALID


@pytest.mark.parametrize("name", ["../x", "a/b", "a\0b", "x" * 10_000, "digits\n", "%2e%2e/", ""])
def test_e8_odd_names_and_versions_of_models_are_not_found(
    name: str, server: ServerProcess, channel: grpc.Channel
) -> None:
    """They are looked up in a dictionary, become no path and no label of a metric."""
    series = len(server.get(f"{server.ops_url}/metrics").splitlines())
    stub = GRPCInferenceServiceStub(channel)
    for request in (pb.ModelMetadataRequest(name=name), pb.ModelMetadataRequest(name="digits", version=name or "x")):
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelMetadata(request, timeout=60)
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND
        assert len(raised.value.details() or "") < 300
    # The first of such calls may have made the series of its method and status.
    assert len(server.get(f"{server.ops_url}/metrics").splitlines()) <= series + 2
