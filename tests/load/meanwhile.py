"""What goes on beside a measurement."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def meanwhile(work: Callable[[], object], *, every_s: float = 0.0) -> Iterator[None]:
    """Have another thread do something again and again.

    Args:
        work: Is not broken off: the end waits for it. What it raises ends the repetition, and is raised at the end.
        every_s: Seconds before each.
    """
    stopped, wrong = threading.Event(), list[Exception]()

    def repeat() -> None:
        while not stopped.wait(every_s) and not wrong:
            try:
                work()
            except Exception as error:
                wrong.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
    if wrong:
        raise wrong[0]
