"""Which cores, memory and descriptors there are to use, and how they are shared among workers, threads and ports.

What counts is the least of what the process is bound to (`taskset`, cpusets)
and the limits of its control group and of all above it, version 1 or 2: a
container's limits are such.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

MIB = 1 << 20
# Of a worker at work, 125 MB, and of the large requests that it may hold.
WORKER_BYTES = 192 * MIB
# What version 1 says where there is no limit is a little less than this.
NO_LIMIT_BYTES = 1 << 62
# Descriptors that a process needs besides those of callers: up to 40 of its own, and connections of operators.
OPERATORS = 32
OWN_DESCRIPTORS = 64 + OPERATORS


@dataclass(frozen=True, slots=True)
class Resources:
    """What there is.

    Attributes:
        bound: Cores that the process may run on.
        cpu_limit: Cores' worth of time that its control group may use; None without a limit.
        memory_limit: Bytes that its control group may use; None without a limit.
    """

    bound: int
    cpu_limit: float | None
    memory_limit: int | None = None

    @property
    def cores(self) -> int:
        """Whole cores to plan with, at least one."""
        return max(1, int(min(self.bound, self.cpu_limit or self.bound)))

    @property
    def workers(self) -> int:
        """One for every core, as far as the memory goes."""
        room = self.cores if self.memory_limit is None else self.memory_limit // WORKER_BYTES
        return max(1, min(self.cores, room))

    def __str__(self) -> str:
        limit = "none" if self.cpu_limit is None else f"{self.cpu_limit:g}"
        memory = "none" if self.memory_limit is None else f"{self.memory_limit // MIB} MiB"
        return (
            f"{self.cores} to use (bound to {self.bound}, limit of the control group {limit}); memory limit: {memory}"
        )


@dataclass(frozen=True, slots=True)
class Share:
    """How the cores are shared: workers, and each one's threads."""

    workers: int
    threads: int
    decode_threads: int

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} for the model, {self.workers} x {self.decode_threads} for image files"


def available(root: Path = Path("/")) -> Resources:
    """What this process may use; `root` is where `proc` and `sys` are looked for."""
    # macOS binds no process to cores, and has no control groups.
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cpu, memory = _limits(root, CPU), _limits(root, MEMORY)
    return Resources(bound, min(cpu, default=None), min(map(int, memory), default=None))


def share(resources: Resources, *, workers: int | str, threads: int, decode_threads: int | str) -> Share:
    """Share cores out; "auto" is as many workers as there is room for, and for decoding a worker's part of the cores.

    More threads than that part are not started: they could only wait for each other.
    """
    count = resources.workers if isinstance(workers, str) else workers
    part = max(1, resources.cores // count)

    def at_most(wanted: int | str) -> int:
        return part if isinstance(wanted, str) else min(wanted, part)

    return Share(count, at_most(threads), at_most(decode_threads))


def connections(wanted: int) -> int:
    """How many connections gRPC and HTTP may have each, so that no port takes the descriptors that others need.

    The limit of descriptors is raised as far as that needs it and the system lets us.

    Args:
        wanted: The most.
    """
    needed = 2 * wanted + OWN_DESCRIPTORS
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < needed:
        limit = needed if highest == resource.RLIM_INFINITY else min(needed, highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, highest))
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return wanted
    most = max(1, (limit - min(OWN_DESCRIPTORS, limit // 2)) // 2)
    log.warning("gRPC and HTTP get %d connections each, not %d: the limit of open files is %d", most, wanted, limit)
    return most


def _cpu_v2(group: Path) -> Iterator[float]:
    quota, period = (group / "cpu.max").read_text().split()
    if quota != "max":
        yield int(quota) / int(period)


def _cpu_v1(group: Path) -> Iterator[float]:
    quota = int((group / "cpu.cfs_quota_us").read_text())
    if quota > 0:
        yield quota / int((group / "cpu.cfs_period_us").read_text())


def _memory_v2(group: Path) -> Iterator[float]:
    limit = (group / "memory.max").read_text().strip()
    if limit != "max":
        yield int(limit)


def _memory_v1(group: Path) -> Iterator[float]:
    limit = int((group / "memory.limit_in_bytes").read_text())
    if limit < NO_LIMIT_BYTES:
        yield limit


# The controller in /proc/self/cgroup (version 2 has one for all), where its tree is mounted, and what reads a group.
Kind = tuple[str, tuple[str, ...], Callable[[Path], Iterator[float]]]
V2 = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
CPU: tuple[Kind, ...] = (
    ("", V2, _cpu_v2),
    ("cpu", ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu"), _cpu_v1),
)
MEMORY: tuple[Kind, ...] = (("", V2, _memory_v2), ("memory", ("sys/fs/cgroup/memory",), _memory_v1))


def _limits(root: Path, kinds: tuple[Kind, ...]) -> Iterator[float]:
    """Every limit that applies: of the group and of the groups above it, as far as they are to be seen."""
    groups = _groups(root / "proc/self/cgroup")
    for controller, mounts, read in kinds:
        if controller not in groups:
            continue
        for mount in mounts:
            # In a container the path may be the host's: what is mounted there is then the group itself.
            group = root / mount / groups[controller].lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(root / mount):
                    with contextlib.suppress(OSError, ValueError):
                        yield from read(folder)


def _groups(file: Path) -> dict[str, str]:
    """The path of the process's group by controller; version 2 has one for all, under ""."""
    groups: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            groups |= dict.fromkeys(controllers.split(","), path)
    return groups
