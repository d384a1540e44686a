"""Harm that is done to a server, with a caller beside it that behaves: what that one sees, and what memory it takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.robustness.goodcaller import GoodCaller
from tests.robustness.processes import forget_peak, peak_bytes, resident_bytes
from tests.server_process import ServerProcess

# Does harm to a server until a time on the monotonic clock; returns what it has seen, and raises AssertionError if the
# server did not do what it promises.
Attack = Callable[[ServerProcess, float], str]

HEADING = (
    f"{'attack':22} {'errors':>6} {'refused':>7} {'answers':>7} "
    f"{'p50 ms':>7} {'p99 ms':>7} {'peak MB':>8} {'after MB':>8}  seen"
)


@dataclass(frozen=True, slots=True)
class Row:
    """What came of an attack.

    Attributes:
        good: The caller that behaved.
        peak_bytes: The most memory the server took above what it had before.
        after_bytes: What it took afterwards, above what it had before.
        seen: What the attack has seen.
        faults: Promises that were not kept; empty if all were.
    """

    good: GoodCaller
    peak_bytes: int
    after_bytes: int
    seen: str
    faults: tuple[str, ...]

    def line(self, name: str) -> str:
        """As the table below `HEADING` has it."""
        good = self.good
        counts = f"{len(good.errors):6d} {good.refused:7d} {len(good.seconds):7d}"
        times = f"{good.milliseconds(50):7.1f} {good.milliseconds(99):7.1f}"
        memory = f"{self.peak_bytes / 1e6:+8.1f} {self.after_bytes / 1e6:+8.1f}"
        return f"{name:22} {counts} {times} {memory}  {'; '.join((self.seen, *self.faults))}"


def beside(
    server: ServerProcess, attack: Attack, seconds: float, *, may_refuse: bool = False, max_attempts: int = 1
) -> Row:
    """Attack a server for some seconds.

    Args:
        server: Which.
        attack: What is done to it.
        seconds: How long.
        may_refuse: Whether it is full then, and may say so to the good caller too.
        max_attempts: Of each call of the good caller.
    """
    pid, faults = server.process.pid, []
    base = resident_bytes(pid)
    forget_peak(pid)
    with GoodCaller(server.grpc_address, max_attempts=max_attempts) as good:
        time.sleep(0.5)
        try:
            seen = attack(server, time.monotonic() + seconds)
        except AssertionError as error:
            seen = f"FAILED: {error}"
            faults.append(seen)
        time.sleep(0.5)
    if good.errors:
        faults.append(f"FAILED: the good caller got {dict(Counter(good.errors))}")
    if good.refused and not may_refuse:
        faults.append("FAILED: the good caller was refused")
    if server.process.poll() is not None:
        faults.append("FAILED: the server is gone")
        return Row(good, 0, 0, seen, tuple(faults))
    return Row(good, peak_bytes(pid) - base, resident_bytes(pid) - base, seen, tuple(faults))
