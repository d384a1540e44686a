"""How a process keeps its memory."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

# Eight threads at a time allocate what is too large for the small blocks that each has of its own.
ALLOCATE = """
import ctypes, gc, threading
from service.processes import memory

if {settle}:
    memory.settle()
libc, together = ctypes.CDLL(None), threading.Barrier(8)
libc.malloc.restype = ctypes.c_void_p

def allocate():
    together.wait()
    libc.malloc(10_000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(gc.get_freeze_count(), flush=True)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def kept(*, settle: bool) -> tuple[int, int]:
    """Objects that collections leave alone, and heaps of malloc, in a process that settles or does not."""
    done = subprocess.run([sys.executable, "-c", ALLOCATE.format(settle=settle)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[0]), len(re.findall("<heap nr=", done.stdout))


@pytest.mark.skipif(sys.platform != "linux", reason="heaps of glibc")
def test_threads_share_a_heap_and_collections_leave_alone_what_was_imported() -> None:
    objects, heaps = kept(settle=True)
    assert objects > 1000
    assert heaps == 1
    objects, heaps = kept(settle=False)
    assert objects == 0
    assert heaps > 1
