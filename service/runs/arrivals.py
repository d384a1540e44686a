"""When to begin with what has arrived: not before those are in who are at the door.

gRPC hands calls over one by one, each after a switch of threads and a pass of
the event loop. What began for the first would be done once for every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Passes of the event loop without anybody new, some microseconds each. In each, gRPC's threads may come in between.
QUIET_PASSES = 8


async def let_arrive(count: Callable[[], int], enough: int) -> None:
    """Wait until nobody new comes.

    Args:
        count: How many are in.
        enough: With so many, there is no waiting.
    """
    quiet, before = 0, count()
    while quiet < QUIET_PASSES and before < enough:
        await asyncio.sleep(0)
        now = count()
        quiet = quiet + 1 if now == before else 0
        before = now
