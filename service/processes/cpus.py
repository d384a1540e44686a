"""How many cores there are to use, and how they are shared among workers and threads.

What counts is the least of what the process is bound to (`taskset`, cpusets)
and the CPU limits of its control group and of all above it, version 1 or 2:
a container's limit is one of these.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# By version: the controller in /proc/self/cgroup, and where its tree is mounted.
TREES = {
    "v2": ("", ("sys/fs/cgroup", "sys/fs/cgroup/unified")),
    "v1": ("cpu", ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu")),
}


@dataclass(frozen=True, slots=True)
class Cores:
    """What there is.

    Attributes:
        bound: Cores that the process may run on.
        limit: Cores' worth of time that its control group may use; None without a limit.
    """

    bound: int
    limit: float | None

    @property
    def whole(self) -> int:
        """Whole cores to plan with, at least one."""
        return max(1, int(min(self.bound, self.limit or self.bound)))

    def __str__(self) -> str:
        limit = "none" if self.limit is None else f"{self.limit:g}"
        return f"{self.whole} to use (bound to {self.bound}, limit of the control group {limit})"


@dataclass(frozen=True, slots=True)
class Share:
    """How the cores are shared: workers, and each one's threads."""

    workers: int
    threads: int
    decode_threads: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} for the model, {self.workers} x {self.decode_threads} for image files"


def available(root: Path = Path("/")) -> Cores:
    """The cores of this process; `root` is where `proc` and `sys` are looked for."""
    # macOS binds no process to cores, and has no control groups.
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cores(bound, min(_limits(root), default=None))


def share(cores: Cores, *, workers: int | str, threads: int, decode_threads: int | str) -> Share:
    """Share cores out; "auto" means one worker for every core, and a worker's part of the cores for its decoding.

    More threads than that part are not started: they could only wait for each other.
    """
    count = cores.whole if isinstance(workers, str) else workers
    part = max(1, cores.whole // count)

    def at_most(wanted: int | str) -> int:
        return part if isinstance(wanted, str) else min(wanted, part)

    return Share(count, at_most(threads), at_most(decode_threads))


def _limits(root: Path) -> Iterator[float]:
    """Every limit that applies, in cores: of the group and of the groups above it, as far as they are to be seen."""
    groups = _groups(root / "proc/self/cgroup")
    for version, (controller, mounts) in TREES.items():
        if controller not in groups:
            continue
        for mount in mounts:
            # In a container the path may be the host's: what is mounted there is then the group itself.
            group = root / mount / groups[controller].lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(root / mount):
                    with contextlib.suppress(OSError, ValueError):
                        yield from _limit_v2(folder) if version == "v2" else _limit_v1(folder)


def _groups(file: Path) -> dict[str, str]:
    """The path of the process's group by controller; version 2 has one for all, under ""."""
    groups: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _limit_v2(folder: Path) -> Iterator[float]:
    quota, period = (folder / "cpu.max").read_text().split()
    if quota != "max":
        yield int(quota) / int(period)


def _limit_v1(folder: Path) -> Iterator[float]:
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    if quota > 0:
        yield quota / int((folder / "cpu.cfs_period_us").read_text())
