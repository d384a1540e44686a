"""CPU time and memory of a process with everything it started, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    found, children = [pid], Path(f"/proc/{pid}/task").glob("*/children")
    for file in children:
        for child in file.read_text().split():
            found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of the process and its living descendants so far, in user and kernel mode."""
    ticks = 0
    for each in tree(pid):
        # The second field, the name in brackets, may hold spaces.
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_A_SECOND


def resident_mb(pid: int) -> float:
    """Resident memory of the process and its descendants, in 10^6 bytes; shared pages count for each."""
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
