"""Cores and memory by affinity and control groups, on made-up trees of /proc and /sys, and their sharing out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.processes.resources import WORKER_BYTES, Resources, Share, available, share


def tree(root: Path, files: dict[str, str]) -> Path:
    """A root folder with these files below it."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
        # The group has no limit, the one above it has.
        (
            {
                "proc/self/cgroup": "0::/pod/server\n",
                "sys/fs/cgroup/pod/server/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            },
            1.5,
        ),
        # The least of them counts.
        (
            {
                "proc/self/cgroup": "0::/pod/server\n",
                "sys/fs/cgroup/pod/server/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "250000 100000\n",
            },
            2.5,
        ),
        # The path is the host's, the mount the container's own group.
        ({"proc/self/cgroup": "0::/kubepods/pod1/abc\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        # Version 1, its two spellings, and -1 for no limit.
        (
            {
                "proc/self/cgroup": "4:memory:/\n2:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/docker/abc\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        # Both versions at once, with the CPU under the first.
        (
            {
                "proc/self/cgroup": "2:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "120000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1.2,
        ),
        # What cannot be read limits nothing.
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_cpu_limit_of_the_control_group(tmp_path: Path, files: dict[str, str], limit: float | None) -> None:
    assert available(tree(tmp_path, files)).cpu_limit == limit


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n"}, 512 << 20),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        # The least of all groups counts.
        (
            {
                "proc/self/cgroup": "0::/pod/server\n",
                "sys/fs/cgroup/pod/server/memory.max": "max\n",
                "sys/fs/cgroup/pod/memory.max": "268435456\n",
                "sys/fs/cgroup/memory.max": "1073741824\n",
            },
            256 << 20,
        ),
        # Version 1, whose number for no limit is the largest there is, in whole pages.
        (
            {
                "proc/self/cgroup": "4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "268435456\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            256 << 20,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_the_memory_limit_of_the_control_group(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    assert available(tree(tmp_path, files)).memory_limit == limit


def test_the_affinity_counts() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system binds no process to cores")
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})
        assert available().bound == 1
    finally:
        os.sched_setaffinity(0, mine)


@pytest.mark.parametrize(
    ("room", "cores"),
    [
        (Resources(8, 0.5), 1),
        (Resources(8, 1.5), 1),
        (Resources(8, 2.0), 2),
        (Resources(2, 16.0), 2),
        (Resources(4, None), 4),
    ],
)
def test_cores_are_rounded_down_and_at_least_one(room: Resources, cores: int) -> None:
    assert (room.cores, room.workers) == (cores, cores)


@pytest.mark.parametrize(("memory", "workers"), [(0, 1), (1, 1), (2, 2), (2.9, 2), (8, 8), (100, 8)])
def test_no_more_workers_than_the_memory_has_room_for(memory: float, workers: int) -> None:
    room = Resources(8, None, int(memory * WORKER_BYTES))
    assert room.workers == workers
    # Those that are there share all cores.
    assert share(room, workers="auto", threads=1, decode_threads="auto") == Share(workers, 1, 8 // workers)


@pytest.mark.parametrize(
    ("room", "wanted", "expected"),
    [
        # 500m of a large node: one worker with one thread.
        (Resources(64, 0.5), ("auto", 1, "auto"), Share(1, 1, 1)),
        (Resources(8, None), ("auto", 1, "auto"), Share(8, 1, 1)),
        (Resources(8, None), (2, 4, "auto"), Share(2, 4, 4)),
        (Resources(8, None), (1, 1, "auto"), Share(1, 1, 8)),
        # Never more than there is, and never none.
        (Resources(8, 4.0), (2, 16, 16), Share(2, 2, 2)),
        (Resources(1, None), (3, 4, 5), Share(3, 1, 1)),
    ],
)
def test_cores_are_shared_among_workers_and_threads(
    room: Resources, wanted: tuple[int | str, int, int | str], expected: Share
) -> None:
    workers, threads, decode_threads = wanted
    assert share(room, workers=workers, threads=threads, decode_threads=decode_threads) == expected


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        # Raised as far as needed.
        (200, 10_000, (1000, 2096)),
        (200, 1024, (464, 1024)),
        (200, 200, (52, 200)),
        (64, 64, (16, 64)),
        (10_000, 10_000, (1000, 10_000)),
    ],
)
def test_descriptors_are_shared_among_the_ports(soft: int, hard: int, expected: tuple[int, int]) -> None:
    """In a process of its own: connections of gRPC and HTTP each, and the limit of open files then."""
    program = (
        "from resource import RLIMIT_NOFILE, getrlimit, setrlimit\n"
        "from service.processes.resources import connections\n"
        f"setrlimit(RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "print((connections(1000), getrlimit(RLIMIT_NOFILE)[0]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{expected}\n"
    is_told = "not 1000: the limit of open files is" in done.stderr
    assert is_told == (expected[0] < 1000)
