"""What the kernel knows of a server and its workers: which processes they are, and who talks to them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.server_process import ServerProcess, wait_until

ESTABLISHED, LISTEN = "01", "0A"
# Until a worker is known to hang, and another one has started, on a machine that does other things as well.
REPLACED_S = 60


def workers_of(server: ServerProcess) -> dict[int, int]:
    """The process ids of its workers, by their numbers."""
    pid = server.process.pid
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"service.worker" in words:
            found[int(words[words.index(b"service.worker") + 1])] = int(child)
    return found


def connections(pid: int, port: int) -> int:
    """How many connections to a port a process has taken."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *others = line.split()
            if state == ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{others[5]}]")
    return len(inodes & set(map(_link, Path(f"/proc/{pid}/fd").iterdir())))


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    # Closed meanwhile.
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process, ours or not, still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end_worker(server: ServerProcess, number: int, signum: signal.Signals = signal.SIGKILL) -> None:
    """Send a worker a signal, and wait until another one has taken its place."""
    pid = workers_of(server)[number]
    os.kill(pid, signum)
    wait_until(
        lambda: workers_of(server).get(number, pid) != pid and server.metric("digitserve_workers") == 2, REPLACED_S
    )


def listening(pid: int) -> set[int]:
    """The ports on which a process listens."""
    ours = set(map(_link, Path(f"/proc/{pid}/fd").iterdir()))
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        int(local.rpartition(":")[2], 16)
        for _, local, _, state, *others in sockets
        if state == LISTEN and f"socket:[{others[5]}]" in ours
    }
