"""The contract of digits.v1 over real sockets, against the real server process."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.errors import CallError, NotReady
from service.over_grpc.calls import Streams
from service.over_grpc.digits import DigitClassifier
from service.settings import bundled_models
from tests.listening import listening
from tests.pictures import Pixels, encode, on_paper
from tests.server_process import ServerProcess, wait_until

RAW, ENCODED = pb.IMAGE_FORMAT_RAW_28X28, pb.IMAGE_FORMAT_ENCODED
Digits = tuple[Pixels, Pixels]


def refused(call: grpc.UnaryUnaryMultiCallable, request: Message) -> tuple[str, str]:  # type: ignore[type-arg]
    """Code and text of a call that has to fail."""
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=10)
    return error.value.code().name, error.value.details() or ""


def test_raw_and_encoded_images_are_read_alike(stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits) -> None:
    images, labels = digits
    right = 0
    for image, label in zip(images[:40], labels[:40], strict=True):
        raw = stub.Classify(pb.ClassifyRequest(format=RAW, image=image.tobytes()))
        for format in (ENCODED, pb.IMAGE_FORMAT_UNSPECIFIED):
            encoded = stub.Classify(pb.ClassifyRequest(format=format, image=encode(image)))
            assert encoded.prediction == raw.prediction
        right += raw.prediction.digit == label
        assert raw.prediction.confidence == raw.prediction.probabilities[raw.prediction.digit]
        assert sum(raw.prediction.probabilities) == pytest.approx(1, abs=1e-5)
        assert raw.model_version == "1"
        assert raw.timing.decode_seconds == 0 < encoded.timing.decode_seconds
        assert raw.timing.model_seconds > 0
    assert right >= 36


def test_what_scores_below_the_threshold_is_not_a_digit(stub: digits_pb2_grpc.DigitClassifierStub) -> None:
    threshold = stub.GetModel(pb.GetModelRequest()).reject_threshold
    noise = np.random.default_rng(1).integers(256, size=(200, 784), dtype=np.uint8)
    batch = pb.ClassifyBatchRequest(format=RAW, images=[image.tobytes() for image in noise])
    predictions = [result.prediction for result in stub.ClassifyBatch(batch).results]
    strange = [prediction.rejection_reason == "not a digit" for prediction in predictions]
    assert strange == [prediction.digit_score < threshold for prediction in predictions]
    assert len({prediction.digit_score for prediction in predictions}) > 100


def test_a_blank_image_is_rejected_with_its_best_guess(stub: digits_pb2_grpc.DigitClassifierStub) -> None:
    prediction = stub.Classify(pb.ClassifyRequest(format=RAW, image=bytes(784))).prediction
    assert (prediction.rejected, prediction.rejection_reason) == (True, "blank")
    assert len(prediction.probabilities) == 10


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (pb.ClassifyRequest(image=b"hello"), "the 5 bytes are no image the server can read; it reads PNG, JPEG"),
        (pb.ClassifyRequest(), "the image is empty: 0 bytes"),
        (pb.ClassifyRequest(format=RAW, image=bytes(783)), "a RAW_28X28 image has 784 bytes"),
        (pb.ClassifyRequest(format=9, image=b"x"), "unknown image format 9; expected IMAGE_FORMAT_ENCODED (1) or"),  # type: ignore[arg-type]
        (pb.ClassifyRequest(image=bytes(5 << 20)), "has 5242880 bytes, the limit is 4194304 (--max-image-bytes)"),
        (
            pb.ClassifyRequest(image=bytes(9 << 20)),
            "message has 9437189 bytes, the limit is 8388608 (--max-message-bytes)",
        ),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(
    stub: digits_pb2_grpc.DigitClassifierStub, request_: pb.ClassifyRequest, text: str
) -> None:
    code, details = refused(stub.Classify, request_)
    assert code == "INVALID_ARGUMENT"
    assert text in details


def test_a_message_far_beyond_the_limit_is_refused_by_the_transport(stub: digits_pb2_grpc.DigitClassifierStub) -> None:
    code, details = refused(stub.Classify, pb.ClassifyRequest(image=bytes(17 << 20)))
    assert (code, "larger than max" in details) == ("RESOURCE_EXHAUSTED", True)


def test_bytes_that_are_no_message_are_the_callers_fault(server: ServerProcess) -> None:
    name = {"grpc_method": "Classify", "grpc_code": "INVALID_ARGUMENT"}
    before = server.metric("grpc_server_handled_total", **name)
    with grpc.insecure_channel(server.grpc_address) as channel, pytest.raises(grpc.RpcError) as error:
        call: Any = channel.unary_unary("/digits.v1.DigitClassifier/Classify")
        call(b"\xff\xff\xff", timeout=10)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == "the 3 bytes of the request are no message of the type this call takes"
    assert server.metric("grpc_server_handled_total", **name) == before + 1


@pytest.mark.parametrize(
    ("images", "text"), [(0, "no image; send 1 to 1024"), (1025, "1025 images, the limit is 1024")]
)
def test_a_batch_of_the_wrong_size_is_refused(
    stub: digits_pb2_grpc.DigitClassifierStub, images: int, text: str
) -> None:
    code, details = refused(stub.ClassifyBatch, pb.ClassifyBatchRequest(format=RAW, images=[bytes(784)] * images))
    assert code == "INVALID_ARGUMENT"
    assert text in details


def test_o12_one_bad_image_among_31_good_ones_in_a_batch(
    stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits
) -> None:
    files = [encode(image) for image in digits[0][:31]]
    alone = [stub.Classify(pb.ClassifyRequest(image=file)).prediction for file in files]
    files.insert(17, b"not an image")
    results = list(stub.ClassifyBatch(pb.ClassifyBatchRequest(images=files)).results)
    error = results.pop(17).error
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "no image the server can read" in error.message
    assert [result.prediction.digit for result in results] == [prediction.digit for prediction in alone]
    for result, prediction in zip(results, alone, strict=True):
        np.testing.assert_allclose(result.prediction.probabilities, prediction.probabilities, atol=1e-6)
        assert result.prediction.rejection_reason == prediction.rejection_reason


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(128)))
def test_each_of_32_callers_gets_its_own_answer(
    server: ServerProcess, stub: digits_pb2_grpc.DigitClassifierStub, digits: Digits, order: list[int]
) -> None:
    images = [digits[0][n] for n in order]
    batch = pb.ClassifyBatchRequest(format=RAW, images=[image.tobytes() for image in images])
    expected = [result.prediction for result in stub.ClassifyBatch(batch).results]
    rows = server.metric("digitserve_batch_images_sum")

    async def ask_all() -> list[pb.ClassifyResponse]:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            ask = digits_pb2_grpc.DigitClassifierStub(channel).Classify
            free = asyncio.Semaphore(32)

            async def one(image: Pixels) -> pb.ClassifyResponse:
                async with free:
                    return await ask(pb.ClassifyRequest(format=RAW, image=image.tobytes()))

            return await asyncio.gather(*(one(image) for image in images))

    answers = asyncio.run(ask_all())
    for answer, prediction in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.prediction.probabilities, prediction.probabilities, atol=1e-6)
    assert server.metric("digitserve_batch_images_sum") - rows == len(images)


class Recorder:
    """A classifier that keeps the deadlines it is given, and does not answer."""

    def __init__(self) -> None:
        self.deadlines: list[float | None] = []

    async def classify(self, images: object, format: object, deadline: float | None) -> None:
        self.deadlines.append(deadline)
        raise NotReady("this is a test")


async def test_the_callers_deadline_is_the_classifiers() -> None:
    recorder = Recorder()
    server = grpc.aio.server()
    about, streams = pb.GetModelResponse(), Streams(asyncio.Event(), bool)
    servicer = DigitClassifier(recorder, None, None, about_server=about, stream_window_images=1, streams=streams)  # type: ignore[arg-type]
    digits_pb2_grpc.add_DigitClassifierServicer_to_server(servicer, server)
    async with listening(server) as address, grpc.aio.insecure_channel(address) as channel:
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        for timeout in (None, 50):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Classify(pb.ClassifyRequest(), timeout=timeout)
    assert recorder.deadlines[0] is None
    assert recorder.deadlines[1] is not None
    assert 30 < recorder.deadlines[1] - time.monotonic() <= 51


def test_a_deadline_that_cannot_be_met(server: ServerProcess, stub: digits_pb2_grpc.DigitClassifierStub) -> None:
    def given_up() -> float:
        # The caller's clock ends the call, and the server's a moment later: whichever of the two it hears of first.
        codes = ("DEADLINE_EXCEEDED", "CANCELLED")
        return sum(
            server.metric("grpc_server_handled_total", grpc_method="ClassifyBatch", grpc_code=code) for code in codes
        )

    before = given_up()
    bar = np.zeros((28, 28), np.uint8)
    bar[4:24, 12:16] = 255
    files = [encode(on_paper(bar, scale=40))] * 800
    with pytest.raises(grpc.RpcError) as error:
        # Long enough to arrive on a busy machine, far too short for all the files.
        stub.ClassifyBatch(pb.ClassifyBatchRequest(images=files), timeout=0.3)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: given_up() == before + 1)


def test_the_model_is_described(stub: digits_pb2_grpc.DigitClassifierStub) -> None:
    model = stub.GetModel(pb.GetModelRequest())
    file = (bundled_models() / "digits/1/model.onnx").read_bytes()
    assert (model.name, model.version) == ("digits", "1")
    assert model.sha256 == hashlib.sha256(file).hexdigest()
    assert "conv5x5" in model.network and "MNIST" in model.trained_on
    assert 0.997 <= model.accuracy <= 1 and 0 < model.calibration_error <= 0.003
    assert model.tested_on == "MNIST test set, 10,000 images"
    assert "Apache-2.0" in model.licence and len(model.commit) == 40
    assert model.providers_got[0] == model.providers_asked[0] == "CPUExecutionProvider"
    assert (model.limits.max_image_bytes, model.limits.max_image_pixels) == (4 << 20, 16_000_000)
    assert (model.limits.max_batch_images, model.limits.max_message_bytes) == (1024, 8 << 20)


def test_every_status_code_the_errors_name_is_one_of_grpc() -> None:
    def family(error: type[CallError]) -> Iterator[type[CallError]]:
        for child in error.__subclasses__():
            yield child
            yield from family(child)

    assert {error.status for error in family(CallError)} <= {code.name for code in grpc.StatusCode}
