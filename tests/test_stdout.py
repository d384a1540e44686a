"""S1: a server serves, and ends when it is told to, whatever becomes of what it prints."""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.server_process import COMMAND, wait_until
from tests.worker_processes import listening

FREE_PORTS = ("--grpc-port", "0", "--http-port", "0", "--ops-port", "0")


@contextlib.contextmanager
def stalled() -> Iterator[int]:
    """A pipe that is full and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


@contextlib.contextmanager
def abandoned() -> Iterator[int]:
    """A pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextlib.contextmanager
def full() -> Iterator[int]:
    """A disk without room."""
    writer = os.open("/dev/full", os.O_WRONLY)
    yield writer
    os.close(writer)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return bool(response.read() == b"ok\n")
    # Of another port, or not yet.
    except (OSError, http.client.HTTPException):
        return False


def serves_and_ends(process: subprocess.Popen[bytes]) -> None:
    """Wait until a server is ready, and see it end by a signal."""
    try:
        wait_until(lambda: process.poll() is not None or any(map(is_ready, listening(process.pid))))
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("stdout", [stalled, abandoned, full])
def test_s1_a_server_needs_nobody_who_reads_its_output(
    stdout: Callable[[], AbstractContextManager[int]], workers: str
) -> None:
    with stdout() as output:
        serves_and_ends(subprocess.Popen([COMMAND, "serve", *FREE_PORTS, "--workers", workers], stdout=output))


def test_a_server_without_a_standard_output_serves() -> None:
    line = shlex.join([str(COMMAND), "serve", *FREE_PORTS, "--log-request-share", "1"])
    serves_and_ends(subprocess.Popen(["sh", "-c", f"exec {line} >&-"]))
