"""The versions of the model that are loaded, each with a queue of its own.

A request is answered by one version from beginning to end: whoever is
replaced or taken away still answers what it has accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import NotFound, NotReady
from service.model.repository import Model
from service.model.statistics import Statistics
from service.runs.batching import Batcher, Observer
from service.runs.judging import Images, Judged, judge


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A model that is loaded, the way to it, and what it did so far."""

    model: Model
    batcher: Batcher[Judged]
    statistics: Statistics


class Versions:
    """Finds the version that answers a request. Use as an async context manager; leaving it closes all."""

    def __init__(
        self,
        *,
        max_run_images: int,
        max_queue_images: int,
        observer: Observer,
        max_run_s: float = math.inf,
        around: Callable[[Batcher[Judged]], Batcher[Judged]] | None = None,
    ):
        """Prepare; nothing is loaded.

        Args:
            max_run_images: Most images in one run of a model.
            max_queue_images: Images that may wait for one version.
            observer: Told of every queue and every run.
            max_run_s: What a run may take; one that takes longer is ended.
            around: Makes of a batcher what callers submit to.
        """
        self._max_run_s = max_run_s
        self._around = around
        self._max_run_images = max_run_images
        self._max_queue_images = max_queue_images
        self._observer = observer
        self._loaded: dict[str, Version] = {}
        self._newest: Version | None = None

    async def __aenter__(self) -> Versions:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for version in [*self._loaded]:
            await self.remove(version)

    def loaded(self) -> list[Version]:
        """Every loaded version, in ascending order."""
        return [*self._loaded.values()]

    def sha256(self) -> dict[str, str]:
        """The sha256 of every loaded version's file, by version."""
        return {each.model.version: each.model.sha256 for each in self.loaded()}

    def get(self, version: str) -> Version | None:
        """The version of this number, if it is loaded."""
        return self._loaded.get(version)

    def in_words(self) -> str:
        """What answers, and on what it runs."""
        if self._newest is None:
            return "no model"
        model = self._newest.model
        return f"model {model.name}/{model.version} on {model.providers_got[0]}"

    def find(self, version: str = "") -> Version:
        """The version of this number; the newest for "".

        To be asked again after every pause: what was found may be closed by then.

        Raises:
            NotReady: None is loaded.
            NotFound: This one is not.
        """
        if self._newest is None:
            raise NotReady("no model is loaded: it is still being loaded, or was unloaded; try again in a moment")
        if not version:
            return self._newest
        try:
            return self._loaded[version]
        except KeyError:
            raise NotFound(
                f"Request for unknown model: version '{version[:40]}' is not found; loaded is {', '.join(self._loaded)}"
            ) from None

    async def add(self, model: Model) -> None:
        """Answer with a model from now on; one of the same version gives way to it."""
        statistics = Statistics(self._observer)

        def run(images: Images) -> Judged:
            return judge(images, *model.run(images), reject_threshold=model.reject_threshold)

        batcher: Batcher[Judged] = Batcher(
            run,
            max_run_images=self._max_run_images,
            max_queue_images=self._max_queue_images,
            observer=statistics,
            runs_at_once=model.runs_at_once,
            max_run_s=self._max_run_s,
            stop_runs=model.stop_runs,
        )
        batcher.start()
        if self._around:
            batcher = self._around(batcher)
        before = self._loaded.get(model.version)
        self._set({**self._loaded, model.version: Version(model, batcher, statistics)})
        if before:
            await before.batcher.close()

    async def remove(self, version: str) -> None:
        """Answer with a version no more."""
        leaving = self._loaded[version]
        self._set({number: each for number, each in self._loaded.items() if number != version})
        await leaving.batcher.close()

    def _set(self, loaded: dict[str, Version]) -> None:
        self._loaded = {number: loaded[number] for number in sorted(loaded, key=int)}
        self._newest = next(reversed(self._loaded.values()), None)
