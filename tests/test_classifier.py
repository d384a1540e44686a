"""Images in, predictions or typed errors out; with the released model, and with models made for a case."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import pytest

from service.classifier import Answer, Classifier, Format, Prediction
from service.errors import DeadlinePassed, InvalidImage, InvalidRequest, NotReady, QueueFull
from service.model.repository import Model
from service.model.versions import Versions
from service.pictures.decoding import Decoder
from service.pictures.images import ImageReader
from service.runs.judging import Floats, Images
from tests.pictures import Pixels, encode, on_paper


class Quiet:
    """An observer that counts what it is told."""

    def __init__(self) -> None:
        self.decoded = 0
        self.predictions: list[tuple[int, float, float, str]] = []

    def queue_changed(self, images: int) -> None:
        pass

    def model_ran(self, images: int, seconds: float, waits: Sequence[float]) -> None:
        pass

    def image_decoded(self, seconds: float) -> None:
        self.decoded += 1

    def predicted(
        self, digits: Sequence[int], confidences: Sequence[float], ink: Sequence[float], reasons: Sequence[str]
    ) -> None:
        self.predictions += zip(digits, confidences, ink, reasons, strict=True)


Run = Callable[[Images], tuple[Floats, Floats]]


def count_ink(images: Images) -> tuple[Floats, Floats]:
    """A model that reads the digit off the first pixel, its confidence in percent and its score off the next two."""
    probabilities = np.full((len(images), 10), 0.0, np.float32)
    pixels = images[:, 0, 0].astype(np.float32)
    confidence = pixels[:, 1] / 100
    probabilities += ((1 - confidence) / 9)[:, None]
    probabilities[np.arange(len(images)), images[:, 0, 0, 0]] = confidence
    return probabilities, pixels[:, 2]


def raw(digit: int, confidence: int = 90, score: int = 9, brightest: int = 255) -> bytes:
    """A RAW_28X28 image for `count_ink`."""
    return bytes([digit, confidence, score, brightest]) + bytes(780)


@contextlib.asynccontextmanager
async def classifying(run: Run = count_ink, observer: Quiet | None = None, **limits: int) -> AsyncIterator[Classifier]:
    observer = observer or Quiet()
    reader = ImageReader(max_bytes=100_000, max_pixels=100_000)
    decoder = Decoder(reader, threads=1, max_images=limits.get("max_decode_images", 8), observer=observer)
    async with Versions(max_run_images=4, max_queue_images=64, observer=observer) as versions:
        await versions.add(Model("digits", "7", "", "", 1.0, 0.0, "", "", "", "", 5.0, [], [], run, b""))
        yield Classifier(decoder, versions, max_batch_images=limits.get("max_batch_images", 8), observer=observer)
    decoder.close()


async def classify_raw(*images: bytes) -> Answer:
    async with classifying() as classifier:
        return await classifier.classify(images, Format.RAW_28X28)


async def test_a_prediction_is_what_the_model_says() -> None:
    answer = await classify_raw(raw(3, confidence=70))
    (prediction,) = answer.results
    assert isinstance(prediction, Prediction)
    assert prediction.digit == 3
    assert prediction.confidence == pytest.approx(0.7)
    assert prediction.probabilities[3] == prediction.confidence
    assert sum(prediction.probabilities) == pytest.approx(1)
    assert (prediction.rejection_reason, prediction.digit_score) == ("", 9)
    assert answer.model_version == "7"
    assert answer.decode_seconds == 0 and answer.model_seconds > 0


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (raw(3, confidence=51, score=5), ""),
        (raw(3, score=4), "not a digit"),
        (raw(3, confidence=49), "ambiguous"),
        (raw(3, confidence=20, score=4), "not a digit"),
        (bytes([3, 10, 9]) + bytes(781), "blank"),
        (bytes(784), "blank"),
    ],
)
async def test_what_should_not_be_trusted_says_why_and_keeps_its_best_guess(image: bytes, reason: str) -> None:
    (prediction,) = (await classify_raw(image)).results
    assert isinstance(prediction, Prediction)
    assert prediction.rejection_reason == reason
    assert len(prediction.probabilities) == 10


async def test_a_bad_image_gets_an_error_in_its_place() -> None:
    answer = await classify_raw(raw(1), b"short", raw(2))
    assert [r.digit for r in answer.results if isinstance(r, Prediction)] == [1, 2]
    assert isinstance(answer.results[1], InvalidImage)
    assert str(answer.results[1]) == "a RAW_28X28 image has 784 bytes (28 rows of 28), this one has 5"


async def test_only_bad_images_never_reach_the_model() -> None:
    def never(images: Images) -> tuple[Floats, Floats]:
        raise AssertionError("the model ran")

    async with classifying(never) as classifier:
        answer = await classifier.classify([b"", b"x"], Format.ENCODED)
    assert [str(result).split(";")[0] for result in answer.results] == [
        "the image is empty: 0 bytes",
        "the 1 bytes are no image the server can read",
    ]


async def test_files_are_normalised_and_raw_images_are_not(digits: tuple[Pixels, Pixels]) -> None:
    seen: list[Images] = []

    def keep(images: Images) -> tuple[Floats, Floats]:
        seen.append(images)
        return np.full((len(images), 10), 0.1, np.float32), np.ones(len(images), np.float32)

    digit, observer = digits[0][0], Quiet()
    async with classifying(keep, observer) as classifier:
        await classifier.classify([digit.tobytes()], Format.RAW_28X28)
        await classifier.classify([encode(digit), encode(on_paper(digit))], Format.ENCODED)
    assert np.array_equal(seen[0][0, 0], digit)
    assert np.array_equal(seen[1][0, 0], digit)
    assert seen[1][1, 0].max() == 255
    assert observer.decoded == 2
    assert len(observer.predictions) == 3


@pytest.mark.parametrize(
    ("images", "text"),
    [([], "the request holds no image; send 1 to 8"), ([b""] * 9, "the request holds 9 images, the limit is 8")],
)
async def test_too_few_and_too_many_images(images: list[bytes], text: str) -> None:
    async with classifying() as classifier:
        with pytest.raises(InvalidRequest, match=text):
            await classifier.classify(images, Format.ENCODED)


async def test_before_a_model_is_there_calls_are_told_to_come_again() -> None:
    decoder = Decoder(ImageReader(1000, 1000), threads=1, max_images=1, observer=Quiet())
    versions = Versions(max_run_images=1, max_queue_images=1, observer=Quiet())
    classifier = Classifier(decoder, versions, max_batch_images=1, observer=Quiet())
    for format in Format:
        with pytest.raises(NotReady, match="still being loaded"):
            await classifier.classify([b""], format)
    decoder.close()


async def test_files_that_wait_to_be_read_are_limited(digits: tuple[Pixels, Pixels]) -> None:
    file = encode(on_paper(digits[0][0]))
    async with classifying(max_decode_images=4) as classifier:
        first = asyncio.create_task(classifier.classify([file] * 3, Format.ENCODED))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="3 image files wait to be read and 2 more would exceed the limit of 4"):
            await classifier.classify([file] * 2, Format.ENCODED)
        assert len((await first).results) == 3
        assert len((await classifier.classify([file] * 4, Format.ENCODED)).results) == 4


async def test_a_deadline_that_passed_stops_before_reading_the_file(digits: tuple[Pixels, Pixels]) -> None:
    observer = Quiet()
    async with classifying(observer=observer) as classifier:
        with pytest.raises(DeadlinePassed, match="before the image file was read"):
            await classifier.classify([encode(digits[0][0])] * 2, Format.ENCODED, deadline=time.monotonic())
    assert observer.decoded == 0


async def test_a_request_of_many_files_lets_a_small_one_in_between(digits: tuple[Pixels, Pixels]) -> None:
    order: list[str] = []

    class Ordered(Quiet):
        def image_decoded(self, seconds: float) -> None:
            order.append("file")

    file = encode(on_paper(digits[0][0], scale=20))
    async with classifying(observer=Ordered(), max_batch_images=40, max_decode_images=100) as classifier:
        many = asyncio.create_task(classifier.classify([file] * 40, Format.ENCODED))
        await asyncio.sleep(0)
        await classifier.classify([file], Format.ENCODED)
        behind = len(order)
        await many
    assert behind < 20


async def test_the_observer_is_told_of_every_image() -> None:
    observer = Quiet()
    async with classifying(observer=observer) as classifier:
        await classifier.classify([raw(3), raw(4, confidence=40)], Format.RAW_28X28)
    ink = [(digit + confidence + 9 + 255) / 784 / 255 for digit, confidence in ((3, 90), (4, 40))]
    expected = [(3, 0.9, ink[0], ""), (4, 0.4, ink[1], "ambiguous")]
    assert [told[::3] for told in observer.predictions] == [told[::3] for told in expected]
    assert [told[1:3] for told in observer.predictions] == [pytest.approx(told[1:3]) for told in expected]
