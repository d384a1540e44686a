"""The server as the clients of others see it, each in a process of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.environments import environment
from tests.server_process import ServerProcess

# Making the environment takes a minute or two, once.
pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def clients() -> Path:
    return environment("clients")


@pytest.mark.parametrize("name", ["triton_grpc", "triton_http", "two_copies", "kserve_sdk", "health"])
def test_the_client_works_unchanged(server: ServerProcess, clients: Path, name: str) -> None:
    """What is checked is in tests/clients."""
    command = [clients / "python", "-m", "tests.clients", name, server.grpc_address, server.http_url.split("//")[1]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "check_" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("examples", ["15", pytest.param("100", marks=pytest.mark.slow)])
def test_a_fuzzer_finds_the_http_side_as_it_is_described(clients: Path, tmp_path: Path, examples: str) -> None:
    """Schemathesis; a schema cannot say that a shape fits its data, so what it takes to be valid may be refused."""
    with ServerProcess("--model-control", "explicit") as server:
        command: list[str | Path] = [clients / "st", "--no-color", "run", f"{server.http_url}/openapi.json"]
        options = ["--max-examples", examples, "--mode", "all", "--seed", "1"]
        options += ["--exclude-checks", "positive_data_acceptance"]
        # Without a model the other calls would rightly fail.
        options += ["--exclude-operation-id", "unload"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path, timeout=600)
        assert done.returncode == 0, done.stdout
        assert "Tested: 18" in done.stdout
        stderr = server.stop()[1]
    assert "fault" not in stderr
