"""docs/clients.md and the README: every example, run as it is written but for the address of the server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.environments import environment, node_environment
from tests.server_process import ServerProcess

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]
TEXT = (REPOSITORY / "docs" / "clients.md").read_text()
# The first line of an example is its name.
EXAMPLE = re.compile(r"```\w+\n(?:#|//) (\w+)\n(.*?)```", re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall(TEXT))
IN_README = dict(EXAMPLE.findall((REPOSITORY / "README.md").read_text()))
# perf_analyzer's line is run by tests/test_perf_analyzer.py, with shorter windows.
RUN_HERE = {"triton_grpc", "triton_http", "kserve", "buf", "curl", "curl_form", "curl_v2", "node"}


def test_every_example_is_run() -> None:
    assert EXAMPLES.keys() == RUN_HERE | {"perf_analyzer"}
    assert len(EXAMPLES) == len(re.findall(r"^```\w+$", TEXT, re.MULTILINE))


def test_the_readme_has_the_same_examples() -> None:
    assert {"triton_grpc", "kserve", "buf", "curl_v2"} == IN_README.keys()
    assert IN_README.items() <= EXAMPLES.items()


def run(name: str, server: ServerProcess, command: list[str | Path], **environ: str) -> str:
    """What an example prints; it is given to a program by standard input."""
    code = EXAMPLES[name].replace("127.0.0.1:8001", server.grpc_address)
    code = code.replace("127.0.0.1:8000", server.http_url.split("//")[1])
    done = subprocess.run(
        command, input=code, capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ, **environ}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    printed: str = done.stdout.strip()
    return printed


@pytest.mark.parametrize(("name", "printed"), [("triton_grpc", "7"), ("triton_http", "(1, 10)"), ("kserve", "7")])
def test_python(server: ServerProcess, name: str, printed: str) -> None:
    assert run(name, server, [environment("clients") / "python", "-"]).splitlines()[-1] == printed


def test_node_with_the_proto_file_alone(server: ServerProcess) -> None:
    modules = node_environment()
    assert run("node", server, ["node", "-"], NODE_PATH=str(modules)) == "7"


def test_buf_learns_the_messages_from_the_server(server: ServerProcess) -> None:
    path = f"{node_environment() / '.bin'}{os.pathsep}{os.environ['PATH']}"
    answer = json.loads(run("buf", server, ["sh"], PATH=path))
    assert (answer["modelVersion"], answer["outputs"][0]["shape"]) == ("1", ["1", "10"])


@pytest.mark.parametrize("name", ["curl", "curl_form", "curl_v2"])
def test_curl(server: ServerProcess, name: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    answer = json.loads(run(name, server, ["sh"]))
    if name == "curl_v2":
        probabilities = answer["outputs"][0]["data"]
        assert probabilities.index(max(probabilities)) == 7
    else:
        assert answer["digit"] == 7
