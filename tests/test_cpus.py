"""Cores by affinity and control groups, on made-up trees of /proc and /sys, and their sharing out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.processes.cpus import Cores, Share, available, share


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
def test_the_limit_of_the_control_group(tmp_path: Path, files: dict[str, str], limit: float | None) -> None:
    assert available(tree(tmp_path, files)).limit == limit


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
    ("cores", "whole"),
    [(Cores(8, 0.5), 1), (Cores(8, 1.9), 1), (Cores(8, 2.0), 2), (Cores(2, 16.0), 2), (Cores(4, None), 4)],
)
def test_whole_cores_are_rounded_down_and_at_least_one(cores: Cores, whole: int) -> None:
    assert cores.whole == whole


@pytest.mark.parametrize(
    ("cores", "wanted", "expected"),
    [
        # 500m of a large node: one worker with one thread.
        (Cores(64, 0.5), ("auto", 1, "auto"), Share(1, 1, 1)),
        (Cores(8, None), ("auto", 1, "auto"), Share(8, 1, 1)),
        (Cores(8, None), (2, 4, "auto"), Share(2, 4, 4)),
        (Cores(8, None), (1, 1, "auto"), Share(1, 1, 8)),
        # Never more than there is, and never none.
        (Cores(8, 4.0), (2, 16, 16), Share(2, 2, 2)),
        (Cores(1, None), (3, 4, 5), Share(3, 1, 1)),
    ],
)
def test_cores_are_shared_among_workers_and_threads(
    cores: Cores, wanted: tuple[int | str, int, int | str], expected: Share
) -> None:
    workers, threads, decode_threads = wanted
    assert share(cores, workers=workers, threads=threads, decode_threads=decode_threads) == expected
