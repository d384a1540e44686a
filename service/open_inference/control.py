"""The models of the server as a whole: loading and unloading them, and what they did.

A server of one process is one of these; of many, `supervised` asks all.
"""

from __future__ import annotations

from typing import Protocol

from protos import grpc_service_pb2 as pb
from service.model.loading import Loader, State
from service.model.versions import Versions
from service.open_inference import model_config
from service.open_inference.doors import NAMES, Doors


class Control(Protocol):
    """Speaks for the server, whether it is one process or many."""

    async def reload(self) -> None:
        """As `Loader.reload`."""

    async def unload(self) -> None:
        """As `Loader.unload`."""

    async def states(self) -> list[State]:
        """As `Loader.states`."""

    async def statistics(self) -> list[pb.ModelStatistics]:
        """What every loaded version of every model did."""


class Alone:
    """One process, which speaks for itself."""

    def __init__(self, loader: Loader, versions: Versions, doors: Doors):
        """Speak for a loader, the versions it loads, and the models that these are to callers."""
        self._loader = loader
        self._versions = versions
        self._doors = doors

    async def reload(self) -> None:
        """As `Loader.reload`."""
        await self._loader.reload()

    async def unload(self) -> None:
        """As `Loader.unload`."""
        await self._loader.unload()

    async def states(self) -> list[State]:
        """As `Loader.states`."""
        return self._loader.states()

    async def statistics(self) -> list[pb.ModelStatistics]:
        """What every loaded version of every model did."""
        return [
            model_config.statistics(door, each)
            for name in NAMES
            for each in self._versions.loaded()
            for door in self._doors.of(each)
            if door.name == name
        ]

    async def look(self) -> None:
        """As `Loader.look`."""
        await self._loader.look()

    def loaded(self) -> dict[str, str]:
        """As `Versions.sha256`."""
        return self._versions.sha256()
