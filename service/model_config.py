"""The two models of the Open Inference Protocol, and what their callers are told about them.

Both are the same network: `digits` takes pixels, `digits_image` image files.
"""

from __future__ import annotations

from dataclasses import dataclass

from protos import grpc_service_pb2 as pb

# Datatype and shape of one image.
Spec = tuple[str, tuple[int, ...]]

PROBABILITIES, DIGIT_SCORE, SEEN = "probabilities", "digit_score", "seen"


@dataclass(frozen=True, slots=True)
class Door:
    """A model as a caller sees it.

    Attributes:
        name: What it is called.
        input: Datatype, and shape of one image.
        outputs: By name, in the order they are given; `seen` only to those who ask.
    """

    name: str
    input: Spec
    outputs: dict[str, Spec]


PIXELS_DOOR = Door("digits", ("UINT8", (1, 28, 28)), {PROBABILITIES: ("FP32", (10,)), DIGIT_SCORE: ("FP32", ())})
FILES_DOOR = Door("digits_image", ("BYTES", ()), {**PIXELS_DOOR.outputs, SEEN: ("UINT8", (28, 28))})
DOORS = {door.name: door for door in (PIXELS_DOOR, FILES_DOOR)}


def metadata(door: Door, versions: list[str]) -> pb.ModelMetadataResponse:
    """The tensors of a model, with -1 for the number of images."""

    def tensor(name: str, spec: Spec) -> pb.ModelMetadataResponse.TensorMetadata:
        datatype, shape = spec
        return pb.ModelMetadataResponse.TensorMetadata(name=name, datatype=datatype, shape=(-1, *shape))

    return pb.ModelMetadataResponse(
        name=door.name,
        versions=versions,
        platform="onnxruntime_onnx",
        inputs=[tensor("image", door.input)],
        outputs=[tensor(name, spec) for name, spec in door.outputs.items()],
    )
