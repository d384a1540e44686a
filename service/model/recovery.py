"""What happens when a device that has worked fails: the model is loaded anew, as at the start, or the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from service.errors import NotReady, StartError, log_fault


class Recovery:
    """Between the threads that run a model and whoever loads it.

    Attributes:
        failed: Ends with the reason when the model cannot be loaded any more.
    """

    def __init__(self) -> None:
        """Wait for `begin`; until then nothing runs that could fail. Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._reopen: Callable[[], Awaitable[None]] | None = None
        self._task: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = self._loop.create_future()

    def begin(self, reopen: Callable[[], Awaitable[None]]) -> None:
        """From now on, load the model anew by this."""
        self._reopen = reopen

    def device_lost(self) -> None:
        """A device has failed; called in any thread."""
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        if self._reopen and not self.failed.done() and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(self._reopen))

    async def _run(self, reopen: Callable[[], Awaitable[None]]) -> None:
        try:
            await reopen()
        except NotReady:
            # The server ends already.
            return
        except StartError as error:
            self.failed.set_exception(error)
        except Exception as error:
            # A fault of ours must not leave a server that goes on and answers nobody.
            self.failed.set_exception(StartError(f"the model cannot be loaded again: {log_fault(error)}"))
