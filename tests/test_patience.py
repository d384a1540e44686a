"""What is taken for a process that hangs, and what for one that is slow: real processes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from service.processes import patience
from service.processes.patience import LOOK_S, LOOKS, STILL_LOOKS, Patience
from service.processes.worker_process import BEAT_S
from tests.server_process import wait_until

SLEEPS = "import time; print(flush=True); time.sleep(1000)"
COMPUTES = "print(flush=True)\nwhile True: pass"
# As one thread does while another one keeps Python to itself.
WAKES = "import time; print(flush=True)\nwhile True: time.sleep(0.001)"


@contextlib.contextmanager
def process(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to do what the code says, Python's own start left behind."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield running
        running.kill()


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of looks is no limit."""
    monkeypatch.setattr(patience, "LOOKS", float("inf"))


def test_l7_what_hangs_is_found_in_time_to_be_replaced_within_three_seconds() -> None:
    """L7: a new worker starts in about a second."""
    assert BEAT_S + STILL_LOOKS * LOOK_S <= 1.5


@pytest.mark.usefixtures("for_ever")
def test_a_process_that_sleeps_hangs_and_one_that_never_answered_may_yet_wake() -> None:
    with process(SLEEPS) as running:
        wait_until(Patience(running.pid, is_new=False).is_over)
        new = Patience(running.pid, is_new=True)
        assert not any(new.is_over() for _ in range(1000))


@pytest.mark.usefixtures("for_ever")
@pytest.mark.parametrize("is_new", [True, False])
def test_a_process_that_was_stopped_hangs(is_new: bool) -> None:
    with process(COMPUTES) as running:
        running.send_signal(signal.SIGSTOP)
        wait_until(Patience(running.pid, is_new=is_new).is_over)


@pytest.mark.usefixtures("for_ever")
def test_a_process_that_computes_hangs_after_much_cpu_time_and_a_new_one_does_not() -> None:
    with process(COMPUTES) as running:
        new, known = Patience(running.pid, is_new=True), Patience(running.pid, is_new=False)
        assert not any(known.is_over() for _ in range(2 * STILL_LOOKS))
        wait_until(known.is_over)
        assert not new.is_over()


def test_a_process_that_wakes_between_looks_gets_all_of_them() -> None:
    with process(WAKES) as running:
        waiting = Patience(running.pid, is_new=False)
        wait_until(waiting.is_over)
    assert waiting.looks == LOOKS


def test_of_a_process_that_cannot_be_looked_at_nothing_is_known_but_that_it_does_not_answer() -> None:
    """As on a system without /proc."""
    with process(SLEEPS) as running:
        pass
    waiting = Patience(running.pid, is_new=False)
    while not waiting.is_over():
        pass
    assert waiting.looks == LOOKS
