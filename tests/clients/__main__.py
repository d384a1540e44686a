"""`python -m tests.clients NAME GRPC_ADDRESS HTTP_ADDRESS` runs every check of tests/clients/NAME.py."""

from __future__ import annotations

import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "service" / "examples"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Target:
    """The server to ask.

    Attributes:
        grpc: host:port.
        http: host:port.
        files: Ten pictures, of the digits 0 to 9.
    """

    grpc: str
    http: str
    files: list[bytes]


def main() -> None:
    name, grpc, http = sys.argv[1:]
    target = Target(grpc, http, [(EXAMPLES / f"{digit}.png").read_bytes() for digit in NAMES])
    for check_name, check in inspect.getmembers(importlib.import_module(f"tests.clients.{name}"), inspect.isfunction):
        if check_name.startswith("check_"):
            check(target)
            print(check_name, flush=True)


if __name__ == "__main__":
    main()
