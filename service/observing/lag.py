"""How late the event loop is: while it is, calls wait in gRPC's core, where no limit of ours sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK_EVERY_S = 0.25


async def watch_lag(tell: Callable[[float], None]) -> None:
    """Tell again and again by how many seconds a timer was late; ends by being cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        tell(max(loop.time() - due, 0.0))
