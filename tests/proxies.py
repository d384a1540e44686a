"""Real proxies as processes, with what they have in common."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.environments import environment


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def port_of(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def endpoint(address: str) -> dict[str, Any]:
    where = {"address": "127.0.0.1", "port_value": port_of(address)}
    return {"endpoint": {"address": {"socket_address": where}}}


def envoy_command() -> list[str]:
    return [str(environment("envoy") / "envoy"), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
