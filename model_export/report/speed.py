"""How long an answer takes: knows a callable and a clock, no model."""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH_SIZE = 32
ROUNDS, CALLS = 15, 10


def microseconds_per_image(call: Callable[[], object]) -> float:
    """Time a call that reads one batch of 32 images: the median of fifteen rounds of ten calls, in us an image."""
    call()  # the first one allocates
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        rounds.append(time.perf_counter() - start)
    return statistics.median(rounds) / CALLS / BATCH_SIZE * 1e6


def processor() -> str:
    """Name the CPU as Linux does, or at least its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
