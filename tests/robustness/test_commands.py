"""Short runs of `make fuzz`, `make chaos` and `make soak`; the soak must notice a server that leaks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.robustness import half_open

pytestmark = pytest.mark.slow


def run(module: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of one of the commands."""
    command = [sys.executable, "-m", f"tests.robustness.{module}", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stdout + done.stderr


def test_fuzz_finds_nothing() -> None:
    code, output = run("fuzz", "--seconds", "8")
    assert code == 0, output


@pytest.mark.parametrize(
    "attack", ["T1 rapid reset", "T2 settings", "I10 gzip bomb", "O1 overload", "E1 reload", "T6 few"]
)
def test_chaos_leaves_a_good_caller_without_errors(attack: str) -> None:
    """With grpcio; what the native transport does not bear is in docs/robustness.md.

    A full server may refuse the good caller too: under O1 RESOURCE_EXHAUSTED is an answer, and no error.
    """
    code, output = run("chaos", "--seconds", "1", "--only", attack)
    assert code == 0, output


@pytest.mark.timeout(200)
def test_t4_the_call_of_a_peer_whose_cable_is_pulled_ends_in_time() -> None:
    code, seen = half_open.run()
    if code == half_open.NOT_PERMITTED:
        pytest.skip(seen)
    assert code == 0, seen


def test_s12_soak_notices_a_leak_and_only_that() -> None:
    """In seconds a server still warms up, so that the limit is far above what `make soak` allows."""
    code, output = run("soak", "--seconds", "8", "--megabytes", "200")
    assert code == 0, output
    code, output = run("soak", "--seconds", "8", "--megabytes", "200", "--leaking")
    assert code == 1 and "memory grows" in output, output
