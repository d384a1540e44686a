"""One of several server processes that share their ports: `python -m service.worker NUMBER SOCKET`.

What it shall do, it is told over the socket by its supervisor. It ends as any
server does, by SIGTERM, and takes the end of its supervisor for one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from typing import Any

import uvloop

from service.errors import StartError
from service.observing import logs
from service.processes.line import Line
from service.processes.signals import until_signalled
from service.processes.supervised import Supervised
from service.server import running
from service.settings import Settings

log = logging.getLogger(__name__)


async def work(number: int, end: socket.socket) -> int:
    """Serve as the supervisor at the other end of the line says, until a signal or its end; returns the exit code."""
    line = Line()
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    started: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    serving = False

    async def start(said: Any) -> dict[str, Any]:
        told.set_result(said)
        return await started

    async def end_with_supervisor() -> None:
        await line.ended.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    line.answers["start"] = start
    signalled = asyncio.create_task(until_signalled(lambda: serving))
    await line.open(end)
    orphaned = asyncio.create_task(end_with_supervisor())
    said = await told
    settings = Settings.load(said["settings"], {})
    logs.start(settings.log_format, f"worker {number}")
    try:
        async with running(settings, Supervised(line, said["others"])) as server:
            serving = True
            started.set_result({"serves": server.serves})
            await asyncio.wait([signalled, server.failed], return_when=asyncio.FIRST_COMPLETED)
            failed = server.failed.exception() if server.failed.done() else None
    except StartError as error:
        orphaned.cancel()
        # The supervisor says it, once for all workers, and hangs up.
        started.set_result({"failed": str(error), "exit_code": error.exit_code})
        await line.ended.wait()
        return error.exit_code
    if isinstance(failed, StartError):
        log.error("%s", failed)
        return failed.exit_code
    return 0


def main() -> None:
    """The process."""
    # As a server alone does.
    gc.freeze()
    number, end = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(work(number, end)))


if __name__ == "__main__":
    main()
