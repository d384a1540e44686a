"""How long a process that does not answer is waited for: as long as it may be about to.

On a busy machine, or with little CPU time in its control group, an answer may
take seconds. What tells a process that hangs is what its main thread did, which
has to answer: it stood still though nothing kept it from running, or it
computed and came to no end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.25
# It stood still at so many looks in a row, with no sign that it ran between them.
STILL_LOOKS = 5
# CPU time of the main thread, which answers many times in so long.
BUSY_S = 2.0
# Whatever it does: it may starve, or wait for a disk, or for another thread that keeps Python to itself.
LOOKS = 40
# Kernels count CPU time in these, whatever their clock.
TICK_S = 0.01

SLEEPING, STOPPED = "S", "T"


@dataclass(frozen=True, slots=True)
class Look:
    """What a main thread does, and did so far.

    Attributes:
        state: As in ps: waiting for a disk or able to run are others than `SLEEPING` and `STOPPED`.
        switches: How often it went to sleep or was made to wait.
        cpu_s: CPU time it used.
    """

    state: str
    switches: int
    cpu_s: float


class Patience:
    """With a process that was asked something.

    Attributes:
        looks: How often it was looked at since.
    """

    def __init__(self, pid: int, *, is_new: bool):
        """Begin to wait.

        Args:
            pid: The process.
            is_new: Whether it never answered yet: it may still be reading itself from a slow disk or network, so that
                nothing but being stopped proves that it hangs.
        """
        self.looks = 0
        self._pid = pid
        self._is_new = is_new
        self._still = 0
        self._first = self._latest = _look_at(pid)

    def is_over(self) -> bool:
        """Look at it once more, `LOOK_S` after the last time; returns whether it hangs."""
        self.looks += 1
        before, self._latest = self._latest, _look_at(self._pid)
        stands = self._latest is not None and self._latest.state in (STOPPED if self._is_new else SLEEPING + STOPPED)
        self._still = self._still + 1 if stands and self._latest == before else 0
        if self._still >= STILL_LOOKS:
            return True
        return not self._is_new and (self._busy_s() >= BUSY_S or self.looks >= LOOKS)

    def _busy_s(self) -> float:
        return self._latest.cpu_s - self._first.cpu_s if self._latest and self._first else 0.0


def _look_at(pid: int) -> Look | None:
    """A look at a process; None if it is gone, or the system does not tell."""
    thread = Path(f"/proc/{pid}/task/{pid}")
    try:
        state, *numbers = (thread / "stat").read_text().rpartition(")")[2].split()
        told = dict(line.split(":", 1) for line in (thread / "status").read_text().splitlines())
        switches = int(told["voluntary_ctxt_switches"]) + int(told["nonvoluntary_ctxt_switches"])
    except (OSError, KeyError):
        return None
    return Look(state, switches, (int(numbers[10]) + int(numbers[11])) * TICK_S)
