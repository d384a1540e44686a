"""Explanations come one at a time, in a thread that gives way, and only so many may wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from service.classifier import Classifier, Format
from service.errors import NotImplementedYet, NotReady, QueueFull
from service.explanation import explaining, layers
from service.explanation.explaining import MAX_WAITING, Explainer, Explanation
from service.model.repository import Model
from service.model.runtime import LayerSession, Session
from service.model.versions import Version, Versions
from service.observing.metrics import Metrics
from service.pictures.decoding import Decoder
from service.pictures.images import ImageReader
from tests.conftest import REPOSITORY

MODEL = (REPOSITORY / "models" / "digits" / "1" / "model.onnx").read_bytes()
IMAGE = np.random.default_rng(1).integers(0, 256, 784, np.uint8).tobytes()


class Opened:
    """Opens models, counts them, and holds every run up until it is let go."""

    def __init__(self) -> None:
        self.count = 0
        self.niceness: list[int] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, model: bytes) -> Opened:
        self.count += 1
        self._session = LayerSession(model)
        return self

    def run(self, outputs: Sequence[str], images: explaining.Images) -> list[explaining.Field]:
        self.niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.begun.set()
        assert self.go_on.wait(30)
        return self._session.run(outputs, images)


@contextlib.asynccontextmanager
async def explaining_of(opened: Opened, model: bytes) -> AsyncIterator[tuple[Explainer, Classifier, Version]]:
    metrics = Metrics()
    reader = ImageReader(max_bytes=100_000, max_pixels=100_000)
    decoder = Decoder(reader, threads=1, max_images=8, observer=metrics)
    session = Session(MODEL, device="cpu", threads=1, max_run_images=1)
    async with Versions(max_run_images=4, max_queue_images=64, observer=metrics) as versions:
        await versions.add(Model("digits", "7", "", "", 1.0, 0.0, "", "", "", "", 2.0, [], [], session.run, model))
        classifier = Classifier(decoder, versions, max_batch_images=8, observer=metrics)
        explainer = Explainer(reader, classifier, versions, make_session=opened)
        yield explainer, classifier, versions.find()
        explainer.close()
    decoder.close()


@contextlib.asynccontextmanager
async def explainer_of(opened: Opened, model: bytes = MODEL) -> AsyncIterator[Explainer]:
    async with explaining_of(opened, model) as (explainer, _, _):
        yield explainer


def explain(explainer: Explainer) -> asyncio.Task[Explanation]:
    return asyncio.create_task(explainer.explain(IMAGE, Format.RAW_28X28))


async def test_who_comes_when_too_many_wait_is_refused_at_once() -> None:
    opened = Opened()
    async with explainer_of(opened) as explainer:
        accepted = [explain(explainer)]
        await asyncio.to_thread(opened.begun.wait, 30)
        accepted += [explain(explainer) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match=f"{MAX_WAITING} images wait to be explained"):
            await explain(explainer)
        # Who goes leaves room for another.
        accepted.pop().cancel()
        await asyncio.sleep(0)
        accepted.append(explain(explainer))
        opened.go_on.set()
        explanations = await asyncio.gather(*accepted)
    assert {each.model_version for each in explanations} == {"7"} and len(explanations) == 1 + MAX_WAITING
    assert opened.count == 1


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened()
    async with explainer_of(opened) as explainer:
        first = explain(explainer)
        await asyncio.to_thread(opened.begun.wait, 30)
        monkeypatch.setattr(explaining, "MAX_WAIT_S", 0.01)
        with pytest.raises(QueueFull, match=r"others were explained for 0\.01 s"):
            await explain(explainer)
        opened.go_on.set()
        assert (await first).prediction.probabilities


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness for each thread")
async def test_the_thread_gives_way_to_all_others() -> None:
    opened = Opened()
    opened.go_on.set()
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    async with explainer_of(opened) as explainer:
        await explain(explainer)
    assert set(opened.niceness) == {19}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


async def test_a_model_that_is_no_plain_sequence_is_served_and_not_explained() -> None:
    opened = Opened()
    opened.go_on.set()
    async with explainer_of(opened, MODEL.replace(b"Relu", b"Selu")) as explainer:
        for _ in range(2):
            with pytest.raises(NotImplementedYet, match="its node 'relu1' is a Selu"):
                await explain(explainer)
    assert opened.count == 0


async def test_layers_are_looked_for_once_a_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every answer about the model `digits_explain` asks for them, in the event loop."""
    looked: list[bytes] = []

    def take_apart(model: bytes) -> Any:
        looked.append(model)
        return layers.take_apart(model)

    monkeypatch.setattr(explaining, "take_apart", take_apart)
    for model in (MODEL, MODEL.replace(b"Relu", b"Selu")):
        looked.clear()
        async with explaining_of(Opened(), model) as (explainer, _, version):
            for _ in range(3):
                with contextlib.suppress(NotImplementedYet):
                    assert explainer.layers(version)[-1].value == "probabilities"
            assert looked == [model]


async def test_layers_of_a_version_that_has_none_of_these_names_are_refused() -> None:
    async with explaining_of(Opened(), MODEL) as (explainer, classifier, _):
        inferred = await classifier.infer(np.zeros((1, 1, 28, 28), np.uint8))
        with pytest.raises(NotReady, match="replaced by one with other layers"):
            await explainer.values(inferred, ["conv1", "conv99"])


async def test_without_a_model_nothing_is_explained() -> None:
    async with Versions(max_run_images=1, max_queue_images=1, observer=Metrics()) as versions:
        explainer = Explainer(None, None, versions, make_session=Opened())  # type: ignore[arg-type]
        with pytest.raises(NotReady):
            await explain(explainer)
        explainer.close()
