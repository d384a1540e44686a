"""How an image became an answer: the steps to 28x28, what each layer made of them, and which pixels count.

The answer itself comes the ordinary way, through `classifier`. The rest is
done beside it, one image at a time, in a thread that gives way to all others
and with a session of its own, so that looking inside slows nobody down.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from service.classifier import Classifier, Format, Inferred, Prediction, predictions, raw_pixels
from service.errors import InvalidImage, NotImplementedYet, NotReady, QueueFull
from service.explanation.layers import Anatomy, Layer, take_apart
from service.explanation.occlusion import Occlusion, cover
from service.model.versions import Version, Versions
from service.pictures.images import ImageReader, Pixels
from service.pictures.steps import Step, Steps
from service.runs.threads import give_way

Field = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Result = TypeVar("Result")

MAX_WAITING = 8
MAX_WAIT_S = 10.0
# The scheduler's least: others come first, and an idle core is used all the same.
NICENESS = 19


class Session(Protocol):
    """A model whose layers can be asked for; `runtime.LayerSession` is one."""

    def run(self, outputs: Sequence[str], images: Images) -> list[Field]:
        """The outputs of these names, float32 (N, ...), for images, uint8 (N, 1, 28, 28)."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an image became an answer.

    Attributes:
        seen: What the network saw, uint8 of shape (28, 28).
        steps: How the image became that.
        layers: Each layer, with what came out of it, in the order of the flow.
        logits: What the last linear layer says of the digits 0 to 9, and last of "no digit".
        temperature: What the ten are divided by before the softmax.
        prediction: The answer.
        occlusion: Which pixels it hangs on.
        model_version: Who gave it.
    """

    seen: Pixels
    steps: list[Step]
    layers: list[tuple[Layer, Field]]
    logits: list[float]
    temperature: float
    prediction: Prediction
    occlusion: Occlusion
    model_version: str


class Explainer:
    """Explains answers, one at a time."""

    def __init__(
        self,
        reader: ImageReader,
        classifier: Classifier,
        versions: Versions,
        *,
        make_session: Callable[[bytes], Session],
    ):
        """Prepare; models are opened when they are first asked about.

        Args:
            reader: Turns one image file into 28x28 pixels.
            classifier: Gives the answers.
            versions: Of its model.
            make_session: Opens a model file with every layer among its outputs.
        """
        self._reader = reader
        self._classifier = classifier
        self._versions = versions
        self._make_session = make_session
        self._opened: dict[Version, tuple[Anatomy, Session]] = {}
        # Why there are none, where it is a text.
        self._layers: dict[Version, tuple[Layer, ...] | str] = {}
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="explain", initializer=give_way, initargs=(NICENESS,))

    def close(self) -> None:
        """Release the thread; call it when no request is in progress."""
        self._executor.shutdown()

    async def explain(self, image: bytes, format: Format, deadline: float | None = None) -> Explanation:
        """Explain the answer to one image.

        Args:
            image: As `format` says.
            format: How to read it.
            deadline: `time.monotonic()` after which the answer is useless.

        Raises:
            InvalidImage: It cannot be read.
            QueueFull: Several are waiting to be explained, or it took too long until it was this one's turn.
            NotImplementedYet: The model has layers of other kinds than `layers.KINDS`.
            CallError: As for `Classifier.infer`.
        """
        self._versions.find()
        async with self._one_at_a_time():
            seen, steps = await self._in_thread(self._read, image, format)
            inferred = await self._classifier.infer(seen.reshape(1, 1, *seen.shape), deadline)
            return await self._in_thread(self._look_inside, inferred, steps)

    def layers(self, version: Version) -> tuple[Layer, ...]:
        """The layers of a version, in the order of the flow.

        Raises:
            NotImplementedYet: As for `explain`.
        """
        if version not in self._layers:
            known = {each: self._layers[each] for each in self._versions.loaded() if each in self._layers}
            self._layers = {**known, version: _layers_or_reason(version.model.file)}
        found = self._layers[version]
        if isinstance(found, str):
            raise NotImplementedYet(found)
        return found

    async def values(self, inferred: Inferred, names: Sequence[str]) -> list[Field]:
        """What comes out of layers for images that were answered.

        Args:
            inferred: The images and who answered them.
            names: The layers' `value`.

        Returns:
            Of each, float32 (N, ...).

        Raises:
            QueueFull, NotImplementedYet: As for `explain`.
            NotReady: Whoever answered has no such layers: it has taken the place of another meanwhile.
        """
        async with self._one_at_a_time():
            return await self._in_thread(self._run, inferred, names)

    def _run(self, inferred: Inferred, names: Sequence[str]) -> list[Field]:
        anatomy, session = self._open(inferred.version)
        if not {*names} <= {layer.value for layer in anatomy.layers}:
            raise NotReady("the model was replaced by one with other layers in the meantime; ask again")
        began = time.monotonic()
        values = session.run(names, inferred.images)
        inferred.version.statistics.layers.ran(len(inferred.images), time.monotonic() - began)
        return values

    @contextlib.asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        if self._waiting >= MAX_WAITING:
            raise QueueFull(f"{self._waiting} images wait to be explained, the most that may; try again a little later")
        self._waiting += 1
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await self._turn.acquire()
        except TimeoutError:
            raise QueueFull(
                f"others were explained for {MAX_WAIT_S:g} s before it was this image's turn; try again a little later"
            ) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()

    async def _in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def _read(self, image: bytes, format: Format) -> tuple[Pixels, list[Step]]:
        steps = Steps()
        if format is Format.ENCODED:
            return self._reader.read(image, steps), steps.taken
        pixels = raw_pixels(image)
        if isinstance(pixels, InvalidImage):
            raise pixels
        seen = pixels.reshape(28, 28)
        steps("seen", seen)
        return seen, steps.taken

    def _look_inside(self, inferred: Inferred, steps: list[Step]) -> Explanation:
        anatomy, session = self._open(inferred.version)
        image, prediction = inferred.images, next(predictions(inferred.outcome.answers))
        names = [layer.value for layer in anatomy.layers]
        values = {name: value[0] for name, value in zip(names, session.run(names, image), strict=True)}
        return Explanation(
            seen=image[0, 0],
            steps=steps,
            layers=[(layer, values[layer.value]) for layer in anatomy.layers],
            logits=values[anatomy.logits].tolist(),
            temperature=anatomy.temperature,
            prediction=prediction,
            occlusion=cover(image[0, 0], prediction.digit, lambda images: session.run([names[-1]], images)[0]),
            model_version=inferred.version.model.version,
        )

    def _open(self, version: Version) -> tuple[Anatomy, Session]:
        """The layers of a version; opened when it is first asked for, and kept while it is loaded."""
        if version not in self._opened:
            anatomy, model = take_apart(version.model.file)
            loaded = self._versions.loaded()
            kept = {each: opened for each, opened in self._opened.items() if each in loaded}
            self._opened = {**kept, version: (anatomy, self._make_session(model))}
        return self._opened[version]


def _layers_or_reason(model: bytes) -> tuple[Layer, ...] | str:
    """The layers of a model file, or why it cannot be explained."""
    try:
        return take_apart(model)[0].layers
    except NotImplementedYet as error:
        return str(error)
