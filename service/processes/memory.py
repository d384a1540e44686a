"""How the process keeps its memory: for all of its life, so that only who starts it may say so."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

# mallopt's number for the most heaps of malloc.
M_ARENA_MAX = -8


def settle() -> None:
    """Call it when what is needed is imported, before there are threads."""
    # What was imported stays: to look through all of it held up every call for 20 ms, once a second.
    gc.freeze()
    if sys.platform == "linux":
        # A heap for each thread keeps what each has freed, 3 to 6 MB. glibc's threads have small blocks of their own
        # besides, and pictures have memory of theirs; musl has one heap anyway, and no mallopt.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
