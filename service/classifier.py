"""What the service does: images in, predictions or typed errors out.

Knows no transport. Single images, batches and streams come through the same
method, so that an image is answered the same however it was sent.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.batching import Batcher, Images, Outcome
from service.errors import DeadlinePassed, InvalidImage, InvalidRequest, NotReady, QueueFull
from service.images import FAINTEST_INK, SIDE, ImageReader, Pixels
from service.repository import Model

PIXELS = SIDE * SIDE
# With less than half of the probability, the best guess is more likely wrong than right.
AMBIGUOUS_BELOW = 0.5


class Format(enum.Enum):
    """How the bytes of an image are to be read."""

    ENCODED = "an image file"
    RAW_28X28 = "784 bytes, 0 paper to 255 ink"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says about one image.

    Attributes:
        digit: The most probable digit, 0 to 9.
        confidence: Its calibrated probability.
        probabilities: Ten calibrated probabilities with the sum 1.
        rejection_reason: "blank", "not a digit", "ambiguous", or empty for an answer to trust.
        digit_score: How much the image looks like any digit; more is more.
    """

    digit: int
    confidence: float
    probabilities: list[float]
    rejection_reason: str
    digit_score: float


@dataclass(frozen=True, slots=True)
class Inferred:
    """What the model says about a stack of N images.

    Attributes:
        model_version: The version that answered.
        outcome: Its answers as arrays, and where the time went.
        digits: The most probable digit of each image.
        rejection_reasons: As in `Prediction`.
    """

    model_version: str
    outcome: Outcome
    digits: list[int]
    rejection_reasons: list[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """One result for each image of a request, in order, and where the time went (seconds)."""

    results: list[Prediction | InvalidImage]
    model_version: str
    decode_seconds: float
    queue_seconds: float
    model_seconds: float


class Observer(Protocol):
    """Whoever wants to know what was decoded and predicted."""

    def image_decoded(self, seconds: float) -> None:
        """An image file was read, or found unreadable."""

    def predicted(self, digit: int, rejection_reason: str) -> None:
        """An image was classified."""


class Classifier:
    """Classifies images once a model has been handed to `open`."""

    def __init__(
        self,
        reader: ImageReader,
        *,
        max_batch_images: int,
        max_decode_images: int,
        decode_threads: int,
        observer: Observer,
    ):
        """Prepare; calls are answered with NotReady until `open`.

        Args:
            reader: Turns image files into 28x28 pixels.
            max_batch_images: Most images in one request.
            max_decode_images: Image files that may wait to be read; more are refused.
            decode_threads: Threads that read image files.
            observer: Told of every image.
        """
        self._reader = reader
        self._max_batch_images = max_batch_images
        self._max_decode_images = max_decode_images
        self._decoding_images = 0
        self._decode_threads = decode_threads
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._observer = observer
        self._served: tuple[Model, Batcher] | None = None

    def open(self, model: Model, batcher: Batcher) -> None:
        """Answer calls from now on with this model, through this batcher."""
        self._served = model, batcher

    def close(self) -> None:
        """Release the decoding threads; call it when no request is in progress."""
        self._decoders.shutdown()

    @property
    def model(self) -> Model:
        """The model that answers.

        Raises:
            NotReady: None is loaded yet.
        """
        return self._serving()[0]

    async def classify(self, images: Sequence[bytes], format: Format, deadline: float | None = None) -> Answer:
        """Classify images; a bad one gets an error as its result and disturbs no other.

        Args:
            images: At least one, at most `max_batch_images`.
            format: How to read every one of them.
            deadline: `time.monotonic()` after which the answer is useless.

        Raises:
            InvalidRequest: There are no images, or too many.
            QueueFull: Too many images are waiting.
            DeadlinePassed: The deadline passed before the model was free.
            NotReady: The server is starting or shutting down.
        """
        model, _ = self._serving()
        self._check_count(len(images))
        began = time.monotonic()
        if format is Format.RAW_28X28:
            pixels: list[Pixels | InvalidImage] = [_raw(image) for image in images]
            decode_seconds = 0.0
        else:
            pixels = await self._decode(images, deadline)
            decode_seconds = time.monotonic() - began
        good = [each for each in pixels if not isinstance(each, InvalidImage)]
        if not good:
            return Answer([e for e in pixels if isinstance(e, InvalidImage)], model.version, decode_seconds, 0.0, 0.0)
        inferred = await self.infer(np.stack(good).reshape(-1, 1, SIDE, SIDE), deadline)
        outcome = inferred.outcome
        predictions = map(
            _prediction,
            inferred.digits,
            outcome.probabilities.tolist(),
            inferred.rejection_reasons,
            outcome.digit_scores.tolist(),
        )
        results = [each if isinstance(each, InvalidImage) else next(predictions) for each in pixels]
        return Answer(results, inferred.model_version, decode_seconds, outcome.queue_seconds, outcome.model_seconds)

    async def read(self, images: Sequence[bytes], deadline: float | None = None) -> Images:
        """What the network sees of image files, all of which have to be readable.

        Args:
            images: At least one, at most `max_batch_images`.
            deadline: `time.monotonic()` after which the answer is useless.

        Returns:
            uint8 of shape (N, 1, 28, 28).

        Raises:
            InvalidRequest: There are no images, or too many.
            InvalidImage: One of them cannot be read; the text tells which.
            QueueFull: Too many images are waiting.
            DeadlinePassed: The deadline passed before all were read.
        """
        self._check_count(len(images))
        pixels = []
        for index, each in enumerate(await self._decode(images, deadline)):
            if isinstance(each, InvalidImage):
                raise InvalidImage(f"image {index} of the batch: {each}")
            pixels.append(each)
        return np.stack(pixels).reshape(-1, 1, SIDE, SIDE)

    async def infer(self, images: Images, deadline: float | None = None, *, priority: int = 0) -> Inferred:
        """Run the model on pixels.

        Args:
            images: uint8 of shape (N, 1, 28, 28), 0 paper to 255 ink, N from 1 to `max_batch_images`.
            deadline: `time.monotonic()` after which the answer is useless.
            priority: As for `Batcher.submit`.

        Raises:
            InvalidRequest: There are no images, or too many.
            QueueFull: Too many images are waiting.
            DeadlinePassed: The deadline passed before the model was free.
            NotReady: The server is starting or shutting down.
        """
        self._check_count(len(images))
        model, batcher = self._serving()
        outcome = await batcher.submit(images, deadline, priority)
        digits: list[int] = outcome.probabilities.argmax(1).tolist()
        return Inferred(model.version, outcome, digits, self._judge(images, outcome, digits, model.reject_threshold))

    def _serving(self) -> tuple[Model, Batcher]:
        if self._served is None:
            raise NotReady("the model is still being loaded; try again in a moment")
        return self._served

    def _check_count(self, images: int) -> None:
        if not images:
            raise InvalidRequest(f"the request holds no image; send 1 to {self._max_batch_images}")
        if images > self._max_batch_images:
            raise InvalidRequest(
                f"the request holds {images} images, the limit is {self._max_batch_images} (--max-batch-images)"
            )

    async def _decode(self, images: Sequence[bytes], deadline: float | None) -> list[Pixels | InvalidImage]:
        """Read image files in threads, in which Pillow lets other Python code run."""
        if self._decoding_images + len(images) > self._max_decode_images:
            raise QueueFull(
                f"{self._decoding_images} image files wait to be read and {len(images)} more would exceed the limit "
                f"of {self._max_decode_images} (--max-queue-images); try again a little later"
            )
        loop = asyncio.get_running_loop()
        # A large request fills the threads, not their queue: small ones get in between.
        free = asyncio.Semaphore(self._decode_threads)

        async def read(image: bytes) -> Pixels | InvalidImage:
            async with free:
                return await loop.run_in_executor(self._decoders, self._read, image, deadline)

        self._decoding_images += len(images)
        try:
            return await asyncio.gather(*map(read, images))
        finally:
            self._decoding_images -= len(images)

    def _read(self, image: bytes, deadline: float | None) -> Pixels | InvalidImage:
        began = time.monotonic()
        if deadline is not None and began >= deadline:
            raise DeadlinePassed("the deadline passed before the image file was read")
        try:
            return self._reader.read(image)
        except InvalidImage as error:
            return error
        finally:
            self._observer.image_decoded(time.monotonic() - began)

    def _judge(self, images: Images, outcome: Outcome, digits: list[int], reject_threshold: float) -> list[str]:
        """Why each image's answer should not be trusted, or ""; the observer is told."""
        blank = (images.reshape(len(images), -1).max(1) < FAINTEST_INK).tolist()
        strange = (outcome.digit_scores < reject_threshold).tolist()
        confidences = outcome.probabilities.max(1).tolist()
        reasons = list(map(_rejection_reason, blank, strange, confidences))
        for digit, reason in zip(digits, reasons, strict=True):
            self._observer.predicted(digit, reason)
        return reasons


def _raw(image: bytes) -> Pixels | InvalidImage:
    if len(image) != PIXELS:
        return InvalidImage(f"a RAW_28X28 image has {PIXELS} bytes (28 rows of 28), this one has {len(image)}")
    return np.frombuffer(image, np.uint8)


def _prediction(digit: int, probabilities: list[float], reason: str, score: float) -> Prediction:
    return Prediction(digit, probabilities[digit], probabilities, reason, score)


def _rejection_reason(blank: bool, strange: bool, confidence: float) -> str:
    if blank:
        return "blank"
    if strange:
        return "not a digit"
    return "ambiguous" if confidence < AMBIGUOUS_BELOW else ""
