"""ClassifyStream: order, errors in place, a window, cancellation and drain; over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.classifier import Answer, Prediction
from service.observing.metrics import Metrics
from service.over_grpc.calls import Streams
from service.over_grpc.digits import DigitClassifier
from service.over_grpc.interceptors import CallInterceptor
from tests.listening import listening
from tests.pictures import Pixels, encode, on_paper
from tests.server_process import ServerProcess, wait_until

RAW, ENCODED = pb.IMAGE_FORMAT_RAW_28X28, pb.IMAGE_FORMAT_ENCODED
Digits = tuple[Pixels, Pixels]


def test_a_message_that_cannot_be_read_does_not_end_a_stream(server: ServerProcess, digits: Digits) -> None:
    good = pb.ClassifyStreamRequest(id="good", format=RAW, image=digits[0][0].tobytes()).SerializeToString()
    with grpc.insecure_channel(server.grpc_address) as channel:
        call: Any = channel.stream_stream(
            "/digits.v1.DigitClassifier/ClassifyStream", response_deserializer=pb.ClassifyStreamResponse.FromString
        )
        responses = list(call(iter([good, b"\xff\xff\xff", bytes(9 << 20), good]), timeout=30))
    assert [response.id for response in responses] == ["good", "", "", "good"]
    assert [response.error.code for response in responses] == [0, 3, 3, 0]
    assert "3 bytes of the request are no message" in responses[1].error.message
    assert "limit is 8388608 (--max-message-bytes)" in responses[2].error.message


def test_an_id_that_comes_back_is_no_long_text(stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits) -> None:
    raw = digits[0][0].tobytes()
    ids = ("x" * 1024, "y" * 1025)
    requests = (pb.ClassifyStreamRequest(id=id, format=RAW, image=raw) for id in ids)
    longest, longer = stub.ClassifyStream(requests, timeout=30)
    assert longest.id == ids[0] and longest.HasField("prediction")
    assert longer.id == "y" * 1024 and "1025 characters, the limit is 1024" in longer.error.message


def test_o12_one_bad_image_among_31_good_ones_in_a_stream(
    stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits
) -> None:
    files = [encode(image) for image in digits[0][:31]]
    alone = [stub.Classify(pb.ClassifyRequest(image=file)).prediction for file in files]
    files.insert(17, b"not an image")
    requests = (pb.ClassifyStreamRequest(id=f"image {n}", image=file) for n, file in enumerate(files))
    responses = list(stub.ClassifyStream(requests, timeout=30))
    assert [response.id for response in responses] == [f"image {n}" for n in range(32)]
    error = responses.pop(17).error
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    for response, prediction in zip(responses, alone, strict=True):
        np.testing.assert_allclose(response.prediction.probabilities, prediction.probabilities, atol=1e-6)


def test_images_of_all_kinds_in_one_stream(stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits) -> None:
    """Small and large, raw and in files, of a format that does not exist: each is answered in its place."""
    raw, small, large = digits[0][0].tobytes(), encode(digits[0][0]), encode(on_paper(digits[0][0], scale=20))
    kinds = [(RAW, raw), (pb.IMAGE_FORMAT_ENCODED, small), (9, raw), (pb.IMAGE_FORMAT_ENCODED, large), (RAW, b"short")]
    requests = (
        pb.ClassifyStreamRequest(id=str(n), format=format, image=image)  # type: ignore[arg-type]
        for n, (format, image) in enumerate(kinds * 20)
    )
    responses = list(stub.ClassifyStream(requests, timeout=30))
    assert [response.id for response in responses] == [str(n) for n in range(100)]
    digit = digits[1][0]
    said = [response.error.message[:22] or response.prediction.digit for response in responses]
    assert said == [digit, digit, "unknown image format 9", digit, "a RAW_28X28 image has "] * 20


async def test_a_stream_answers_while_it_is_still_open(server: ServerProcess, digits: Digits) -> None:
    """Each image is sent only after the one before it was answered."""
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        call = digits_pb2_grpc.DigitClassifierStub(channel).ClassifyStream(timeout=30)
        for n, image in enumerate(digits[0][:5]):
            await call.write(pb.ClassifyStreamRequest(id=str(n), format=RAW, image=image.tobytes()))
            response = await call.read()
            assert isinstance(response, pb.ClassifyStreamResponse)
            assert response.id == str(n)
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK


def test_a_stream_may_be_longer_than_its_window(stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits) -> None:
    images = list(itertools.islice(itertools.cycle(digits[0]), 1000))
    requests = (
        pb.ClassifyStreamRequest(id=str(n), format=RAW, image=image.tobytes()) for n, image in enumerate(images)
    )
    responses = list(stub.ClassifyStream(requests, timeout=60))
    assert [response.id for response in responses] == [str(n) for n in range(1000)]
    guesses = [response.prediction.digit for response in responses]
    assert guesses[: 1000 - len(digits[0])] == guesses[len(digits[0]) :]


def test_a_stream_whose_caller_leaves_is_counted_as_cancelled(server: ServerProcess, digits: Digits) -> None:
    def ended(code: str) -> float:
        return server.metric("grpc_server_handled_total", grpc_method="ClassifyStream", grpc_code=code)

    cancelled, internal = ended("CANCELLED"), ended("INTERNAL")
    request = pb.ClassifyStreamRequest(format=RAW, image=digits[0][0].tobytes())
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = digits_pb2_grpc.DigitClassifierStub(channel).ClassifyStream(itertools.repeat(request))
        next(call)
        call.cancel()
    wait_until(lambda: ended("CANCELLED") == cancelled + 1)
    assert ended("INTERNAL") == internal


class Slow:
    """A classifier that takes its time, and counts."""

    async def classify(self, images: Sequence[bytes], format: object, deadline: object) -> Answer:
        await asyncio.sleep(0.05)
        return Answer([Prediction(0, 1.0, [1.0] + [0.0] * 9, "", 0.0) for _ in images], "1", 0.0, 0.0, 0.0)


@pytest.mark.parametrize("is_whole", [True, False])
async def test_draining_answers_everything_a_stream_has_given(is_whole: bool) -> None:
    """A stream that was whole ends well; one that is still open is told to go on elsewhere."""
    calls = CallInterceptor(Metrics(), None, max_message_bytes=10_000)
    server = grpc.aio.server()
    about, streams = pb.GetModelResponse(), Streams(calls.draining, calls.answers.hang_up)
    servicer = DigitClassifier(Slow(), None, None, about_server=about, stream_window_images=3, streams=streams)  # type: ignore[arg-type]
    digits_pb2_grpc.add_DigitClassifierServicer_to_server(servicer, calls.before(server))
    async with listening(server) as address, grpc.aio.insecure_channel(address) as channel:
        call = digits_pb2_grpc.DigitClassifierStub(channel).ClassifyStream()
        for n in range(2):
            await call.write(pb.ClassifyStreamRequest(id=str(n)))
        if is_whole:
            await call.done_writing()
        first = await call.read()
        assert isinstance(first, pb.ClassifyStreamResponse)
        read = [first.id]
        calls.draining.set()
        with contextlib.suppress(grpc.aio.AioRpcError):
            while isinstance(response := await call.read(), pb.ClassifyStreamResponse):
                read.append(response.id)
        assert read == ["0", "1"]
        assert await call.code() == (grpc.StatusCode.OK if is_whole else grpc.StatusCode.UNAVAILABLE)
