"""One of several server processes that share their ports: `python -m service.worker NUMBER SOCKET`.

What it shall do, it is told over the socket by its supervisor, also to end. A
signal of its own, or the end of its supervisor, makes it end in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from typing import Any

import uvloop

from service.errors import StartError
from service.observing import logs
from service.processes import memory
from service.processes.line import Line, LineClosed
from service.processes.supervised import Supervised
from service.server import running
from service.settings import Settings

log = logging.getLogger(__name__)


async def work(number: int, end: socket.socket) -> int:
    """Serve as the supervisor at the other end of the line says, until that or a signal ends it.

    Returns:
        The exit code.
    """
    line = Line()
    loop = asyncio.get_running_loop()
    told: asyncio.Future[Any] = loop.create_future()
    started: asyncio.Future[dict[str, Any]] = loop.create_future()
    leaving: asyncio.Future[None] = loop.create_future()
    serving = False

    async def start(said: Any) -> dict[str, Any]:
        told.set_result(said)
        return await started

    def leave(why: str) -> None:
        if not serving:
            os._exit(128 + signal.SIGTERM)
        # Said again, it changes nothing: what ends a control group signals the supervisor as well, which then says it,
        # too. To end at once, on a second signal, is for that to decide.
        if not leaving.done():
            log.info("%s: draining", why)
            leaving.set_result(None)

    async def drain(_: Any) -> None:
        leave("the supervisor says so")

    async def beat(_: Any) -> bool:
        # `running` replaces this answer by one that knows.
        return False

    async def end_with_supervisor() -> None:
        await line.ended.wait()
        leave("the supervisor is gone")

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, leave, signum.name)
    line.answers |= {"start": start, "drain": drain, "beat": beat}
    await line.open(end)
    orphaned = asyncio.create_task(end_with_supervisor())
    said = await told
    settings = Settings.load(said["settings"], {})
    logs.start(settings.log_format, f"worker {number}")
    try:
        async with running(settings, Supervised(line, said["predecessor"])) as server:
            serving = True
            started.set_result({"serves": server.serves})
            await asyncio.wait([leaving, server.failed], return_when=asyncio.FIRST_COMPLETED)
            failed = server.failed.exception() if server.failed.done() else None
    except StartError as error:
        orphaned.cancel()
        # The supervisor says it, once for all workers, and hangs up.
        started.set_result({"failed": str(error), "exit_code": error.exit_code})
        await line.ended.wait()
        return error.exit_code
    except LineClosed:
        # The supervisor is gone; nobody sees this code.
        return 1
    if isinstance(failed, StartError):
        log.error("%s", failed)
        return failed.exit_code
    return 0


def main() -> None:
    """The process."""
    memory.settle()
    number, end = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(work(number, end)))


if __name__ == "__main__":
    main()
