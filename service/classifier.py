"""What the service does: images in, predictions or typed errors out.

Knows no transport. Single images, batches and streams come through the same
method, so that an image is answered the same however it was sent.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from service.errors import InvalidImage, InvalidRequest
from service.model.statistics import Requests
from service.model.versions import Version, Versions
from service.pictures.convention import SIDE
from service.pictures.decoding import Decoder
from service.pictures.images import Pixels
from service.runs.judging import Images, Judged
from service.runs.queueing import Outcome

PIXELS = SIDE * SIDE


class Format(enum.Enum):
    """How the bytes of an image are to be read."""

    ENCODED = "an image file"
    RAW_28X28 = "784 bytes, 0 paper to 255 ink"


class Prediction(NamedTuple):
    """What the model says about one image.

    Attributes:
        digit: The most probable digit, 0 to 9.
        confidence: Its calibrated probability.
        probabilities: Ten calibrated probabilities with the sum 1.
        rejection_reason: "blank", "not a digit", "ambiguous", or empty for an answer to trust.
        digit_score: How much the image looks like any digit; higher is more, on the model's own scale.
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
        version: Which one answered.
        images: What it saw, uint8 of shape (N, 1, 28, 28).
        outcome: Its answers, and where the time went.
    """

    version: Version
    images: Images
    outcome: Outcome[Judged]


@dataclass(frozen=True, slots=True)
class Answer:
    """One result for each image of a request, in order, and where the time went (seconds)."""

    results: list[Prediction | InvalidImage]
    model_version: str
    decode_seconds: float
    queue_seconds: float
    model_seconds: float


class Observer(Protocol):
    """Whoever wants to know what was predicted."""

    def predicted(
        self, digits: Sequence[int], confidences: Sequence[float], ink: Sequence[float], reasons: Sequence[str]
    ) -> None:
        """Images were classified."""


class Classifier:
    """Classifies images, as the versions of the model that are loaded see them."""

    def __init__(
        self,
        decoder: Decoder,
        versions: Versions,
        *,
        max_batch_images: int,
        observer: Observer,
        max_call_s: float = math.inf,
    ):
        """Prepare.

        Args:
            decoder: Reads image files.
            versions: Of the model.
            max_batch_images: Most images in one request.
            observer: Told of every image.
            max_call_s: Deadline of a request that has none.
        """
        self._max_call_s = max_call_s
        self._decoder = decoder
        self._versions = versions
        self._max_batch_images = max_batch_images
        self._observer = observer

    async def classify(self, images: Sequence[bytes], format: Format, deadline: float | None = None) -> Answer:
        """Classify images; a bad one gets an error as its result and disturbs no other.

        Args:
            images: At least one, at most `max_batch_images`.
            format: How to read every one of them.
            deadline: `time.monotonic()` after which the answer is useless.

        Raises:
            CallError: As for `infer` and `infer_files`.
        """
        if format is Format.RAW_28X28:
            requests = self._versions.find().statistics.pixels
            self._check_count(len(images), requests)
            good = [image for image in images if len(image) == PIXELS]
            if not good:
                requests.fail.add(0.0)
            decode_seconds, inferred = 0.0, await self.infer(_joined(good), deadline) if good else None
            read: Sequence[object] = good if len(good) == len(images) else [*map(raw_pixels, images)]
        else:
            decode_seconds, read, inferred = await self.infer_files(images, deadline)
        if inferred is None:
            bad = [each for each in read if isinstance(each, InvalidImage)]
            return Answer([*bad], self._versions.find().model.version, decode_seconds, 0.0, 0.0)
        outcome, found = inferred.outcome, predictions(inferred.outcome.answers)
        return Answer(
            [each if isinstance(each, InvalidImage) else next(found) for each in read],
            inferred.version.model.version,
            decode_seconds,
            outcome.queue_seconds,
            outcome.model_seconds,
        )

    async def infer(
        self,
        images: Images,
        deadline: float | None = None,
        *,
        version: str = "",
        priority: int = 0,
        of_files: bool = False,
    ) -> Inferred:
        """Run the model on pixels.

        Args:
            images: uint8 of shape (N, 1, 28, 28), 0 paper to 255 ink, N from 1 to `max_batch_images`.
            deadline: `time.monotonic()` after which the answer is useless.
            version: Of the model; "" for the newest.
            priority: As for `Batcher.submit`.
            of_files: They were read from image files, and the run counts for those as well.

        Raises:
            InvalidRequest: There are no images, or too many.
            QueueFull: Too many images are waiting.
            DeadlinePassed: The deadline passed before the model was free.
            NotFound: This version is not loaded.
            NotReady: The server is starting or shutting down.
        """
        began = time.monotonic()
        deadline = self._deadline(began, deadline)
        found = self._versions.find(version)
        requests = found.statistics.pixels
        self._check_count(len(images), requests)
        account = found.statistics.files if of_files else None
        submitted = time.monotonic()
        try:
            outcome = await found.batcher.submit(images, deadline, priority, account)
        except BaseException:  # also where the caller left
            requests.fail.add(time.monotonic() - began)
            raise
        answered = time.monotonic()
        judged = outcome.answers
        self._observer.predicted(judged.digits, judged.confidences, judged.ink, judged.rejection_reasons)
        ended = time.monotonic()
        requests.answered(
            len(images),
            input=submitted - began,
            queue=outcome.queue_seconds,
            infer=outcome.model_seconds,
            output=ended - answered,
            total=ended - began,
        )
        return Inferred(found, images, outcome)

    async def infer_files(
        self,
        files: Sequence[bytes],
        deadline: float | None = None,
        *,
        version: str = "",
        priority: int = 0,
        needs_all: bool = False,
    ) -> tuple[float, list[Pixels | InvalidImage], Inferred | None]:
        """Read image files and run the model on those that can be read.

        Args:
            files: At least one, at most `max_batch_images`.
            deadline: As for `infer`.
            version: As for `infer`.
            priority: As for `infer`.
            needs_all: Refuse them all if one cannot be read.

        Returns:
            Seconds it took to read them; the pixels of each, or why there are
            none; and what the model says about those with pixels, if any.

        Raises:
            InvalidImage: One cannot be read, and all are needed; the text tells which.
            CallError: As for `infer`.
        """
        began = time.monotonic()
        deadline = self._deadline(began, deadline)
        requests = self._versions.find(version).statistics.files
        self._check_count(len(files), requests)
        inferred = None
        try:
            pixels = await self._decoder.read(files, deadline)
            decode_seconds = time.monotonic() - began
            if needs_all:
                _check_all(pixels)
            good = _stack(pixels)
            if good is not None:
                inferred = await self.infer(good, deadline, version=version, priority=priority, of_files=True)
        except BaseException:
            requests.fail.add(time.monotonic() - began)
            raise
        total = time.monotonic() - began
        if inferred is None:
            requests.fail.add(total)
        else:
            requests = inferred.version.statistics.files
            queue, infer = inferred.outcome.queue_seconds, inferred.outcome.model_seconds
            requests.answered(len(inferred.images), input=decode_seconds, queue=queue, infer=infer, total=total)
        return decode_seconds, pixels, inferred

    def _deadline(self, now: float, asked: float | None) -> float:
        return now + self._max_call_s if asked is None else asked

    def _check_count(self, images: int, requests: Requests) -> None:
        limit = self._max_batch_images
        if 0 < images <= limit:
            return
        requests.fail.add(0.0)
        if not images:
            raise InvalidRequest(f"the request holds no image; send 1 to {limit}")
        raise InvalidRequest(f"the request holds {images} images, the limit is {limit} (--max-batch-images)")


def _joined(images: Sequence[bytes]) -> Images:
    """Images that are sent as they are, as uint8 (N, 1, 28, 28)."""
    return np.frombuffer(b"".join(images), np.uint8).reshape(-1, 1, SIDE, SIDE)


def _stack(pixels: Sequence[Pixels | InvalidImage]) -> Images | None:
    """Those that are images, as uint8 (N, 1, 28, 28); None if none is."""
    good = [each for each in pixels if not isinstance(each, InvalidImage)]
    return np.stack(good).reshape(-1, 1, SIDE, SIDE) if good else None


def _check_all(pixels: Sequence[Pixels | InvalidImage]) -> None:
    for index, each in enumerate(pixels):
        if isinstance(each, InvalidImage):
            raise InvalidImage(f"image {index} of the batch: {each}")


def predictions(judged: Judged) -> Iterator[Prediction]:
    """What is said about each image, in order."""
    return map(
        Prediction,
        judged.digits,
        judged.confidences,
        judged.probabilities.tolist(),
        judged.rejection_reasons,
        judged.digit_scores.tolist(),
    )


def raw_pixels(image: bytes) -> Pixels | InvalidImage:
    """The pixels of an image that is sent as they are, uint8 of shape (784,); or why it is none."""
    if len(image) != PIXELS:
        return InvalidImage(f"a RAW_28X28 image has {PIXELS} bytes (28 rows of 28), this one has {len(image)}")
    return np.frombuffer(image, np.uint8)
