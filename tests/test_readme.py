"""The README's examples, run as they are written, but for the address of the server."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.server_process import COMMAND, ServerProcess

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def console_line(beginning: str) -> list[str]:
    """The words of the console line that begins so."""
    (line,) = re.findall(rf"^\$ ({re.escape(beginning)}.*)$", README, re.MULTILINE)
    return shlex.split(line)


def run(command: list[str], server: ServerProcess) -> str:
    environ = {**os.environ, "DIGITSERVE_ADDRESS": server.grpc_address}
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environ, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_first_command_prints_what_is_shown(server: ServerProcess) -> None:
    command = console_line(".venv-serve/bin/digitserve classify")
    shown = next(block for block in blocks("text") if "seven.png" in block)
    printed = run([str(COMMAND), *command[1:]], server)

    def without_confidence(text: str) -> list[list[str]]:
        return [line.split()[::2] for line in text.splitlines()]

    assert without_confidence(printed) == without_confidence(shown)


def test_the_python_example(server: ServerProcess) -> None:
    code = next(block for block in blocks("python") if "service.client" in block)
    printed = run([sys.executable, "-c", code.replace("127.0.0.1:8001", server.grpc_address)], server)
    assert re.fullmatch(r"7 \d+\.\d% trust it\n2\n3\n", printed)


def test_the_curl_example(server: ServerProcess) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = console_line("curl")
    command[-1] = command[-1].replace("http://127.0.0.1:8000", server.http_url)
    assert json.loads(run(command, server))["digit"] == 7


def test_the_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for text in (README, (REPOSITORY / "CONTRIBUTING.md").read_text()):
        # Prose makes things, too.
        code = [block or inline for block, inline in re.findall(r"```console\n(.*?)```|`([^`\n]+)`", text, re.DOTALL)]
        named = set(re.findall(r"^make ([a-z0-9-]+)", "\n".join(code), re.MULTILINE))
        assert named and named <= set(targets)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (REPOSITORY / target).exists(), target
