"""The server as the clients of others see it, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.client import Client
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


def test_the_server_runs_with_the_protobuf_of_the_clients(clients: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They admit protobuf 6 only; whoever installs both has that."""
    (packages,) = clients.parent.glob("lib/python*/site-packages")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    code = "import google.protobuf; print(google.protobuf.__version__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("6.")
    with ServerProcess() as server:
        command = [clients / "python", "-m", "tests.clients", "health", server.grpc_address, "unused"]
        subprocess.run(command, check=True, cwd=REPOSITORY, timeout=120, capture_output=True)
        with Client(server.grpc_address) as client:
            assert client.classify(REPOSITORY / "service" / "examples" / "seven.png").digit == 7


@pytest.mark.slow
def test_a_fuzzer_finds_the_http_side_as_it_is_described(clients: Path, tmp_path: Path) -> None:
    """Schemathesis; a schema cannot say that a shape fits its data, so what it takes to be valid may be refused."""
    with ServerProcess("--model-control", "explicit") as server:
        command: list[str | Path] = [clients / "st", "--no-color", "run", f"{server.http_url}/openapi.json"]
        options = ["--max-examples", "100", "--mode", "all", "--seed", "1"]
        options += ["--exclude-checks", "positive_data_acceptance"]
        # Without a model the other calls would rightly fail.
        options += ["--exclude-operation-id", "unload"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path, timeout=600)
        assert done.returncode == 0, done.stdout
        assert "Tested: 18" in done.stdout
        stderr = server.stop()[1]
    assert "fault" not in stderr
