"""Which versions are to be loaded, and loading them while others answer.

A new version is read, checked and warmed before anything else happens; then
it answers, and only then does what it replaces leave. A version that cannot
be used changes nothing but a metric, a line in the log and its state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from service.errors import InvalidRequest, ModelUnusable, NotReady, StartError, log_fault
from service.model import repository
from service.model.repository import Model, ModelFile
from service.model.versions import Versions

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Observer(Protocol):
    """Whoever wants to know which models are loaded."""

    def model_loaded(self, name: str, version: str, sha256: str) -> None:
        """A version answers now."""

    def model_removed(self, name: str, version: str, sha256: str) -> None:
        """A version answers no more."""

    def providers(self, asked: Sequence[str], got: Sequence[str]) -> None:
        """The newest model was loaded with these execution providers."""

    def model_refused(self) -> None:
        """A version could not be loaded."""


@dataclass(frozen=True, slots=True)
class State:
    """How it stands with a version: "READY", "LOADING" or "UNAVAILABLE", and in that case why."""

    version: str
    state: str
    reason: str


class Loader:
    """Keeps the loaded versions at what is in the models' folder."""

    def __init__(
        self,
        versions: Versions,
        *,
        find: Callable[[], Sequence[ModelFile]],
        load: Callable[[ModelFile, bool], Model],
        policy: str,
        observer: Observer,
        on_change: Callable[[], Awaitable[None]],
    ):
        """Prepare; nothing is loaded until `start`.

        Args:
            versions: Gets the models.
            find: Looks for model files; called in a thread.
            load: Makes a model that was checked and is warm, or raises ModelUnusable; called in a thread. Told
                whether it is all there is, so that nothing is lost if loading it ends the process.
            policy: As for `repository.select`.
            observer: Told of every model.
            on_change: Called when versions were loaded or unloaded.
        """
        self._versions = versions
        self._find = find
        self._load = load
        self._policy = policy
        self._observer = observer
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._is_closed = False
        # The event loop itself keeps only weak references.
        self._tasks: set[asyncio.Task[Any]] = set()
        # By version: the file that is loaded, the file that cannot be, and why, for callers.
        self._loaded: dict[str, ModelFile] = {}
        self._failed: dict[str, tuple[ModelFile, str]] = {}
        self._loading = ""
        self._unloaded: list[str] = []
        self._seen: Sequence[ModelFile] = ()

    async def start(self) -> None:
        """Load what is there; a version that cannot be used gives way to the next older one.

        Raises:
            ModelUnusable: None of them can be used.
            StartError: It is not the model that stands in the way.
        """
        async with self._lock:
            found = await asyncio.to_thread(self._find)
            if not repository.select(found, self._policy):
                versions = ", ".join(file.version for file in found)
                raise ModelUnusable(f"--model-versions {self._policy} fits none of the versions found: {versions}")
            why = {}
            while file := self._next(found):
                try:
                    await self._add(file, is_only=len(found) == 1)
                except ModelUnusable as error:
                    why[file.version] = f"{file.path}: {error}"
                    if len(found) == 1:
                        break
                    self._refuse(file, error)
            if not self._loaded:
                raise ModelUnusable(why[max(why, key=int)])
        await self._on_change()

    async def join(self, others: Mapping[str, str]) -> None:
        """Have loaded what other workers have, whatever else there is by now.

        Args:
            others: The sha256 of what they have loaded, by version; empty if they were told to unload it.

        Raises:
            StartError: It cannot be loaded, or the folder holds other files by now.
        """
        async with self._lock:
            found = await asyncio.to_thread(self._find)
            loaded = self._versions.sha256()
            for file in found:
                if file.version in others and loaded.get(file.version) != others[file.version]:
                    await self._add(file, is_only=True)
            for version in loaded.keys() - others.keys():
                await self._remove(version)
            loaded = self._versions.sha256()
            if loaded != dict(others):
                raise ModelUnusable(f"the models' folder holds {loaded or 'none'} of what other workers have, {others}")
            if not others:
                self._unloaded = [file.version for file in repository.select(found, self._policy)]
        await self._on_change()

    async def reload(self) -> None:
        """Load what is new or changed, and let go of what the policy no longer wants.

        The last version that answers stays, whatever happens to its file.

        Raises:
            InvalidRequest: A version that the policy wants could not be loaded.
        """

        async def anew() -> list[str]:
            # It may have failed for want of memory or time: whoever asks again wants it tried again.
            self._failed.clear()
            return await self._catch_up()

        refused = await self._to_its_end(anew)
        if refused:
            raise InvalidRequest(f"not loaded: {'; '.join(refused)}; what was loaded before goes on answering")

    async def reopen(self) -> None:
        """Load what is loaded once more: what it runs on has failed.

        Raises:
            StartError: It cannot be loaded any more.
        """

        async def again() -> None:
            for file in [*self._loaded.values()]:
                await self._add(file)

        await self._to_its_end(again)

    async def unload(self) -> None:
        """Answer with no version until the next `reload`."""

        async def remove_all() -> None:
            leaving = [*self._loaded]
            for version in leaving:
                await self._remove(version)
            self._unloaded += leaving

        await self._to_its_end(remove_all)

    async def close(self) -> None:
        """Wait for what is being loaded, and load no more."""
        async with self._lock:
            self._is_closed = True

    def states(self) -> list[State]:
        """Every version that is loaded, being loaded, unloaded, or cannot be used."""
        states = {version: State(version, "UNAVAILABLE", "unloaded") for version in self._unloaded}
        states |= {version: State(version, "UNAVAILABLE", why) for version, (_, why) in self._failed.items()}
        if self._loading:
            states[self._loading] = State(self._loading, "LOADING", "")
        # What answers is ready, though its file may have been replaced by one that cannot be used.
        states |= {version: State(version, "READY", "") for version in self._loaded}
        return [states[version] for version in sorted(states, key=int)]

    async def watch(self, every_s: float) -> None:
        """Look at the folder again and again, and follow it once it has come to rest; ends by being cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Look at the folder, and follow it if it is as it was at the last look."""
        try:
            found = await asyncio.to_thread(self._find)
            if found == self._seen:
                await self._to_its_end(self._catch_up)
            self._seen = found
        except ModelUnusable:
            # A folder that is gone may come back.
            pass
        except Exception as error:
            log_fault(error)

    async def _to_its_end(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do one thing at a time, and to its end: whoever asked for it may leave in the middle of a swap."""

        async def alone() -> Result:
            async with self._lock:
                if self._is_closed:
                    raise NotReady("the server is shutting down; it loads no more models")
                result = await work()
            await self._on_change()
            return result

        task = asyncio.create_task(alone())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _catch_up(self) -> list[str]:
        """Make the loaded versions those that are wanted; returns what stands against it."""
        try:
            found = await asyncio.to_thread(self._find)
        except ModelUnusable as error:
            # For callers without the path.
            log.error("%s", error)
            return ["no model was found where the server looks for them"]
        while file := self._next(found):
            try:
                await self._add(file)
            except StartError as error:
                self._refuse(file, error)
            except Exception as error:
                # A fault of ours must not keep the other versions from being loaded.
                self._refuse(file, ModelUnusable(log_fault(error)))
        failed = {file.version for file in found if self._has_failed(file)}
        self._failed = {version: each for version, each in self._failed.items() if version in failed}
        self._unloaded = []
        if wanted := self._wanted(found):
            for version in self._loaded.keys() - {file.version for file in wanted}:
                await self._remove(version)
        return [f"version {version}: {reason}" for version, (_, reason) in self._failed.items()]

    def _wanted(self, found: Sequence[ModelFile]) -> list[ModelFile]:
        """What the policy wants of the files that are of use."""
        usable = [file for file in found if file.version in self._loaded or not self._has_failed(file)]
        return repository.select(usable, self._policy)

    def _next(self, found: Sequence[ModelFile]) -> ModelFile | None:
        """A file that is wanted and not loaded."""
        wanted = self._wanted(found)
        return next((f for f in wanted if self._loaded.get(f.version) != f and not self._has_failed(f)), None)

    def _refuse(self, file: ModelFile, error: StartError) -> None:
        log.error("%s cannot be used, what else there is goes on: %s", file.path, error)
        self._failed[file.version] = file, error.for_callers
        self._observer.model_refused()

    def _has_failed(self, file: ModelFile) -> bool:
        return file.version in self._failed and self._failed[file.version][0] == file

    async def _add(self, file: ModelFile, *, is_only: bool = False) -> None:
        self._loading = file.version
        try:
            model = await asyncio.to_thread(self._load, file, is_only)
        finally:
            self._loading = ""
        replaced = self._versions.get(file.version)
        await self._versions.add(model)
        self._loaded[file.version] = file
        self._failed.pop(file.version, None)
        if replaced:
            self._observer.model_removed(model.name, model.version, replaced.model.sha256)
        self._observer.model_loaded(model.name, model.version, model.sha256)
        self._observer.providers(model.providers_asked, model.providers_got)
        got, asked = ", ".join(model.providers_got), ", ".join(model.providers_asked)
        log.info(
            "model %s/%s answers now, sha256 %s, on %s (asked: %s)", model.name, model.version, model.sha256, got, asked
        )

    async def _remove(self, version: str) -> None:
        leaving = self._versions.find(version).model
        await self._versions.remove(version)
        del self._loaded[version]
        self._observer.model_removed(leaving.name, leaving.version, leaving.sha256)
        log.info("model %s/%s answers no more", leaving.name, leaving.version)
