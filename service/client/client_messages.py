"""What the client sends and gets: Python values <-> digits.v1 messages."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
import numpy.typing as npt

from protos import digits_pb2

RAW = digits_pb2.IMAGE_FORMAT_RAW_28X28
ENCODED = digits_pb2.IMAGE_FORMAT_ENCODED
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


class PilImage(Protocol):
    """The part of `PIL.Image.Image` that is needed."""

    @property
    def mode(self) -> str:
        """How its pixels are stored, such as "RGB"."""

    def convert(self, mode: str, /) -> PilImage:
        """The same image in another mode."""

    def save(self, fp: Any, format: str) -> None:
        """Write the image."""


ImageLike = bytes | bytearray | memoryview | str | os.PathLike[str] | PilImage | npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says about one image.

    Attributes:
        digit: The most probable digit, 0 to 9.
        confidence: Its calibrated probability, 0 to 1.
        probabilities: Ten calibrated probabilities with the sum 1.
        rejected: True when the answer should not be trusted.
        rejection_reason: "not a digit", "ambiguous", "blank", or empty.
        digit_score: How much the image looks like any digit; higher is more. Below `ModelInfo.reject_threshold` it is
            "not a digit".
    """

    digit: int
    confidence: float
    probabilities: tuple[float, ...]
    rejected: bool
    rejection_reason: str
    digit_score: float


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answers, and what the server accepts; as in `digits.proto`."""

    name: str
    version: str
    network: str
    accuracy: float
    calibration_error: float
    tested_on: str
    trained_on: str
    licence: str
    commit: str
    sha256: str
    providers_asked: tuple[str, ...]
    providers_got: tuple[str, ...]
    reject_threshold: float
    max_image_bytes: int
    max_image_pixels: int
    max_batch_images: int
    max_message_bytes: int
    transport: str
    transport_reason: str


class ClassifyError(Exception):
    """A call failed, or one image of a batch or stream did.

    Attributes:
        code: Name of the gRPC status, such as "INVALID_ARGUMENT".
        message: What was wrong, in the server's words.
    """

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


Result = Prediction | ClassifyError


_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def encode(image: ImageLike) -> tuple[digits_pb2.ImageFormat.ValueType, bytes]:
    """The format and the bytes an image is sent as."""
    if isinstance(image, bytes | bytearray | memoryview):
        return ENCODED, bytes(image)
    if isinstance(image, str | os.PathLike):
        return ENCODED, Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"an image array must be uint8, 0 to 255, not {image.dtype} of shape {image.shape}")
        return (RAW, image.tobytes()) if image.shape == (28, 28) else (ENCODED, _array_as_png(image))
    if hasattr(image, "save"):
        return ENCODED, _as_png(image)
    raise TypeError(f"an image must be bytes, a path, a PIL image or a uint8 array, not {type(image).__name__}")


def _array_as_png(array: npt.NDArray[np.uint8]) -> bytes:
    # Needed by whoever sends such arrays, and by nobody else.
    from PIL import Image

    try:
        return _as_png(Image.fromarray(array))
    except (TypeError, ValueError, SystemError):
        raise TypeError(
            "an image array must have the shape (height, width), (height, width, 3) or (height, width, 4), "
            f"none of them 0, not {array.shape}"
        ) from None


def _as_png(image: PilImage) -> bytes:
    if image.mode not in PNG_MODES:
        has_alpha = image.mode in ("PA", "RGBa", "La")
        image = image.convert("RGBA" if has_alpha else "RGB")
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def request(image: ImageLike) -> digits_pb2.ClassifyRequest:
    """The message for one image."""
    format, data = encode(image)
    return digits_pb2.ClassifyRequest(format=format, image=data)


def batch_request(images: Sequence[ImageLike]) -> digits_pb2.ClassifyBatchRequest:
    """The message for several images."""
    encoded = [encode(image) for image in images]
    formats = {format for format, _ in encoded}
    if len(formats) > 1:
        raise ValueError("a batch holds 28x28 arrays or pictures, not both; classify_stream takes both")
    return digits_pb2.ClassifyBatchRequest(
        format=formats.pop() if formats else ENCODED, images=[data for _, data in encoded]
    )


def stream_request(image: ImageLike) -> digits_pb2.ClassifyStreamRequest:
    """The message for one image of a stream."""
    format, data = encode(image)
    return digits_pb2.ClassifyStreamRequest(format=format, image=data)


def prediction(message: digits_pb2.Prediction) -> Prediction:
    """What a message says about an image."""
    return Prediction(
        message.digit,
        message.confidence,
        tuple(message.probabilities),
        message.rejected,
        message.rejection_reason,
        message.digit_score,
    )


def result(message: digits_pb2.ItemResult | digits_pb2.ClassifyStreamResponse) -> Result:
    """The prediction, or the error, for one image of a batch or stream."""
    if message.HasField("error"):
        return ClassifyError(_CODE_NAMES.get(message.error.code, "UNKNOWN"), message.error.message)
    if not message.HasField("prediction"):
        return ClassifyError("INTERNAL", "the server answered with neither a prediction nor an error")
    return prediction(message.prediction)


def results(response: digits_pb2.ClassifyBatchResponse) -> list[Result]:
    """The results of a batch, in order."""
    return [result(item) for item in response.results]


def model_info(message: digits_pb2.GetModelResponse) -> ModelInfo:
    """What a message says about the model and the server."""
    return ModelInfo(
        name=message.name,
        version=message.version,
        network=message.network,
        accuracy=message.accuracy,
        calibration_error=message.calibration_error,
        tested_on=message.tested_on,
        trained_on=message.trained_on,
        licence=message.licence,
        commit=message.commit,
        sha256=message.sha256,
        providers_asked=tuple(message.providers_asked),
        providers_got=tuple(message.providers_got),
        reject_threshold=message.reject_threshold,
        max_image_bytes=message.limits.max_image_bytes,
        max_image_pixels=message.limits.max_image_pixels,
        max_batch_images=message.limits.max_batch_images,
        max_message_bytes=message.limits.max_message_bytes,
        transport=message.transport,
        transport_reason=message.transport_reason,
    )
