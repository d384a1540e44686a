"""Whether calls are welcome, told alike by gRPC health, `/readyz` and the metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from grpc_health.v1 import health, health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Observer(Protocol):
    """Whoever shows it."""

    def serving(self, ready: bool) -> None:
        """The server became ready, or stopped being so."""


class Health(health.aio.HealthServicer):
    """Lists everything it is asked about, too, which the one it is made of leaves out."""

    def __init__(self, names: Sequence[str]):
        """Know the services to list, besides the server as a whole ("")."""
        super().__init__()
        self._listed = ("", *names)

    async def List(self, request: object, context: Any) -> Any:
        """Every service and how it is, as `Check` says."""
        asked = {name: health_pb2.HealthCheckRequest(service=name) for name in self._listed}
        statuses = {name: await self.Check(each, context) for name, each in asked.items()}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]  # newer than the stubs


class Readiness:
    """Calls are welcome while the server is open and a model is loaded; the server as a whole is well while it is open.

    Attributes:
        servicer: Answers `grpc.health.v1.Health`.
    """

    def __init__(self, names: Sequence[str], observer: Observer, has_model: Callable[[], bool]):
        """Begin as not ready.

        Args:
            names: Services whose calls they are; health answers for them, and for the server as a whole ("").
            observer: Told of every change.
            has_model: Whether a model is loaded.
        """
        self.servicer = Health(names)
        self._names = names
        self._observer = observer
        self._has_model = has_model
        self._is_open = False

    def is_ready(self) -> bool:
        """Whether calls are welcome."""
        return self._is_open and self._has_model()

    def is_open(self) -> bool:
        """Whether the server has started and is not going away."""
        return self._is_open

    async def open(self, is_open: bool) -> None:
        """Begin to welcome calls, or end it."""
        self._is_open = is_open
        await self.tell()

    async def tell(self) -> None:
        """Say how it stands; to be called when models were loaded or unloaded."""
        ready = self.is_ready()
        self._observer.serving(ready)
        # Whoever unloads the model on purpose has no ill server.
        await self.servicer.set("", SERVING if self._is_open else NOT_SERVING)
        for name in self._names:
            await self.servicer.set(name, SERVING if ready else NOT_SERVING)
