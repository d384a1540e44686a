"""The requests that servers are measured with, all of images that show the same digit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protos import digits_pb2 as pb
from protos import grpc_service_pb2 as oip
from tests.load import h2

RAW = pb.IMAGE_FORMAT_RAW_28X28


@dataclass(frozen=True, slots=True)
class Ask:
    """A request.

    Attributes:
        path: Of its method.
        body: As it is sent.
        images: In it.
        content_type: Of the body.
    """

    path: str
    body: bytes
    images: int = 1
    content_type: str = h2.GRPC


def raw(image: npt.NDArray[np.uint8]) -> Ask:
    """Classify with 784 bytes."""
    message = pb.ClassifyRequest(format=RAW, image=image.tobytes())
    return Ask("/digits.v1.DigitClassifier/Classify", h2.body(message.SerializeToString()))


def file(content: bytes) -> Ask:
    """Classify with an image file."""
    message = pb.ClassifyRequest(image=content)
    return Ask("/digits.v1.DigitClassifier/Classify", h2.body(message.SerializeToString()))


def batch(image: npt.NDArray[np.uint8], size: int) -> Ask:
    """ClassifyBatch with the same image many times."""
    message = pb.ClassifyBatchRequest(format=RAW, images=[image.tobytes()] * size)
    return Ask("/digits.v1.DigitClassifier/ClassifyBatch", h2.body(message.SerializeToString()), size)


def infer(image: npt.NDArray[np.uint8], size: int) -> Ask:
    """ModelInfer, likewise."""
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[size, 1, 28, 28])
    message = oip.ModelInferRequest(model_name="digits", inputs=[tensor], raw_input_contents=[image.tobytes() * size])
    return Ask("/inference.GRPCInferenceService/ModelInfer", h2.body(message.SerializeToString()), size)


def stream(image: npt.NDArray[np.uint8], size: int) -> Ask:
    """ClassifyStream, likewise, a message for each."""
    message = pb.ClassifyStreamRequest(id="7", format=RAW, image=image.tobytes()).SerializeToString()
    return Ask("/digits.v1.DigitClassifier/ClassifyStream", h2.body(*[message] * size), size)
