"""The models of the Open Inference Protocol as their callers see them: three doors to one network.

`digits` takes pixels, `digits_image` image files; `digits_explain` takes image
files and gives what comes out of every layer, which depends on the version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.errors import NotImplementedYet
from service.explanation.layers import Layer
from service.model.versions import Version, Versions

# Datatype and shape of one image.
Spec = tuple[str, tuple[int, ...]]

PROBABILITIES, DIGIT_SCORE, SEEN = "probabilities", "digit_score", "seen"
ORDINARY_OUTPUTS = {PROBABILITIES, DIGIT_SCORE, SEEN}


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

    @property
    def takes_files(self) -> bool:
        """Whether an image is a file."""
        return self.input[0] == "BYTES"


PIXELS_DOOR = Door("digits", ("UINT8", (1, 28, 28)), {PROBABILITIES: ("FP32", (10,)), DIGIT_SCORE: ("FP32", ())})
FILES_DOOR = Door("digits_image", ("BYTES", ()), {**PIXELS_DOOR.outputs, SEEN: ("UINT8", (28, 28))})
LAYERS_DOOR = "digits_explain"
FIXED = {door.name: door for door in (PIXELS_DOOR, FILES_DOOR)}
NAMES = (*FIXED, LAYERS_DOOR)


def layers_door(layers: Sequence[Layer]) -> Door:
    """The model `digits_explain` of a version with these layers."""
    values = {layer.value: ("FP32", layer.shape) for layer in layers if layer.value != PROBABILITIES}
    return Door(LAYERS_DOOR, FILES_DOOR.input, {**FILES_DOOR.outputs, **values})


class Doors:
    """Finds the models of the protocol."""

    def __init__(self, versions: Versions, layers: Callable[[Version], Sequence[Layer]]):
        """Prepare.

        Args:
            versions: Of the network.
            layers: Of one of them, or NotImplementedYet is raised.
        """
        self._versions = versions
        self._layers = layers

    def find(self, name: str, version: str = "") -> Door:
        """The model of this name, which is one of `NAMES`.

        Raises:
            NotImplementedYet: This version of the network does not show its layers.
            NotReady: Which layers it has is not known, since nothing is loaded.
        """
        if name in FIXED:
            return FIXED[name]
        return layers_door(self._layers(self._versions.find(version)))

    def of(self, version: Version) -> list[Door]:
        """Every model that a version of the network can be."""
        try:
            return [*FIXED.values(), layers_door(self._layers(version))]
        except NotImplementedYet:
            return [*FIXED.values()]

    def why_not(self, name: str, version: str) -> str:
        """Why a version that is loaded cannot be had as a model; "" if it can."""
        loaded = self._versions.get(version)
        if name in FIXED or loaded is None:
            return ""
        try:
            self._layers(loaded)
        except NotImplementedYet as error:
            return str(error)
        return ""
