"""SIGTERM and SIGINT: the first one asks for an orderly end, the second one for an end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

log = logging.getLogger(__name__)


async def until_signalled(is_serving: Callable[[], bool], before_exit: Callable[[], None] = lambda: None) -> None:
    """Wait for SIGTERM or SIGINT; a second one, or one before anything is served, ends the process at once.

    Args:
        is_serving: Whether anything is served.
        before_exit: Called before the process ends at once.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(signum: signal.Signals) -> None:
        if stop.is_set() or not is_serving():
            log.warning("%s: exiting at once", signum.name)
            before_exit()
            logging.shutdown()
            os._exit(128 + signum)
        log.info("%s: draining; a second signal exits at once", signum.name)
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, on_signal, signum)
    await stop.wait()
