"""Several worker processes as one server: ports, metrics, models. How they end is in test_worker_lives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos import digits_pb2, digits_pb2_grpc
from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.errors import PortUnavailable
from service.processes.ports import claim
from tests.answering import answering, put
from tests.server_process import COMMAND, ServerProcess, wait_until
from tests.worker_processes import REPLACED_S, connections, end_worker, workers_of

RAW_BLANK = digits_pb2.ClassifyRequest(format=digits_pb2.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
# So many connections that one worker of two gets none of them once in 32,768 times.
MANY = 16
LOCAL = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture(scope="module")
def two(transport: str) -> Iterator[ServerProcess]:
    """A server of two workers of each transport, for all tests that leave it as it is."""
    with ServerProcess("--workers", "2", "--transport", transport) as server:
        yield server


@contextlib.contextmanager
def channels(server: ServerProcess, count: int = MANY) -> Iterator[list[grpc.Channel]]:
    """Connections of their own, which the kernel spreads over the workers."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(grpc.insecure_channel(server.grpc_address, LOCAL)) for _ in range(count)]


def versions_seen(server: ServerProcess) -> set[str]:
    """The versions that answer, over many connections: by Classify and by GetModel."""
    found = set()
    with channels(server) as many:
        for channel in many:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            answer = stub.Classify(RAW_BLANK, timeout=30)
            found |= {answer.model_version, stub.GetModel(digits_pb2.GetModelRequest(), timeout=30).version}
    return found


def states(stub: GRPCInferenceServiceStub) -> list[tuple[str, str]]:
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest())
    return [(each.version, each.state) for each in index.models if each.name == "digits"]


def test_calls_over_all_connections_are_counted_as_one_server_s(two: ServerProcess) -> None:
    call = {"grpc_service": "digits.v1.DigitClassifier", "grpc_method": "Classify"}
    before = two.metric("grpc_server_handled_total", grpc_code="OK", **call)
    port = int(two.grpc_address.rpartition(":")[2])
    with channels(two) as many:
        for channel in many:
            digits_pb2_grpc.DigitClassifierStub(channel).Classify(RAW_BLANK, timeout=30)
        of_each = [connections(pid, port) for pid in workers_of(two).values()]
        assert sum(of_each) == MANY and min(of_each) > 0
        request = pb.ModelStatisticsRequest(name="digits", version="1")
        counts = {
            GRPCInferenceServiceStub(channel).ModelStatistics(request).model_stats[0].inference_stats.success.count
            for channel in many
        }
    assert two.metric("grpc_server_handled_total", grpc_code="OK", **call) == before + MANY
    assert counts == {two.metric("digitserve_queue_seconds_count")}
    assert two.metric("digitserve_ready") == 1
    assert two.metric("digitserve_workers") == 2
    assert two.metric("digitserve_model_info") == 1


def test_all_workers_answer_over_http(two: ServerProcess) -> None:
    port = int(two.http_url.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        for _ in range(MANY):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            caller.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            assert caller.recv(100).startswith(b"HTTP/1.1 200")
        assert min(connections(pid, port) for pid in workers_of(two).values()) > 0


def test_p5_workers_are_no_forks_and_the_supervisor_has_no_grpc(two: ServerProcess) -> None:
    """P5."""
    of_grpc = "cygrpc"
    assert of_grpc not in Path(f"/proc/{two.process.pid}/maps").read_text()
    for pid in workers_of(two).values():
        assert of_grpc in Path(f"/proc/{pid}/maps").read_text()
        # A terminal's Ctrl-C must not reach a worker twice.
        assert os.getsid(pid) == pid


@pytest.mark.parametrize("flags", [["--workers", "1"], ["--workers", "2"]])
@pytest.mark.parametrize("port", ["--grpc-port", "--http-port", "--ops-port"])
def test_l10_a_port_of_workers_is_taken_for_every_other_server(two: ServerProcess, port: str, flags: list[str]) -> None:
    """L10: though workers share their ports, strangers may not."""
    free = {"--grpc-port": "0", "--http-port": "0", "--ops-port": "0"}
    urls = {"--grpc-port": two.grpc_address, "--http-port": two.http_url, "--ops-port": two.ops_url}
    ports = free | {port: urls[port].rpartition(":")[2]}
    command: list[str | Path] = [COMMAND, "serve", *flags, *(word for pair in ports.items() for word in pair)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert f"cannot listen on 127.0.0.1 port {ports[port]}" in ended.stderr and port in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_l10_a_port_that_a_stranger_would_share_is_taken_for_workers() -> None:
    """L10: gRPC's own servers share their ports unless told not to."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        ports = ["--grpc-port", str(stranger.getsockname()[1]), "--http-port", "0", "--ops-port", "0"]
        ended = subprocess.run([COMMAND, "serve", "--workers", "2", *ports], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "Address already in use; choose another with --grpc-port" in ended.stderr


def test_l10_of_two_servers_that_claim_a_port_at_the_same_time_one_is_refused() -> None:
    """L10: nobody listens yet, and both would share it with their workers."""
    with contextlib.ExitStack() as one, contextlib.ExitStack() as other:
        port = claim(one, "127.0.0.1", 0, "--grpc-port")
        with pytest.raises(PortUnavailable, match=f"port {port}: Address already in use; choose another with --grpc"):
            claim(other, "127.0.0.1", port, "--grpc-port")
        worker = one.enter_context(socket.socket())
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(("127.0.0.1", port))
        one.close()
        # Whoever claimed it is gone, and it can be had again.
        claim(other, "127.0.0.1", port, "--grpc-port")


def test_a_token_is_needed_for_what_the_supervisor_answers_too(tmp_path: Path) -> None:
    token = "0123456789abcdef"
    (tmp_path / "tokens").write_text(token)
    with ServerProcess("--workers", "2", "--token-file", str(tmp_path / "tokens"), token=token) as server:
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{server.ops_url}/metrics", timeout=10)
        error.value.close()
        assert error.value.code == 401
        with urllib.request.urlopen(f"{server.ops_url}/readyz", timeout=10) as ready:
            assert ready.status == 200
        with grpc.insecure_channel(server.grpc_address) as channel, pytest.raises(grpc.RpcError) as refused:
            digits_pb2_grpc.DigitClassifierStub(channel).Classify(RAW_BLANK, timeout=30)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        # One in the supervisor, one in a worker.
        assert server.metric("digitserve_turned_away_total", port="http") == 1
        assert server.metric("digitserve_turned_away_total", port="grpc") == 1


def test_l9_workers_take_no_call_before_they_can_answer_it(tmp_path: Path) -> None:
    """L9: a caller who begins to ask before the server starts gets right answers and nothing else."""
    # An address of which nobody else is given ports by chance.
    host = "127.77.0.3"
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    answers: list[int] = []

    def ask() -> None:
        with grpc.insecure_channel(f"{host}:{port}", [*LOCAL, ("grpc.max_reconnect_backoff_ms", 100)]) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            for _ in range(5):
                answer = stub.Classify(RAW_BLANK, wait_for_ready=True, timeout=60)
                answers.append(len(answer.prediction.probabilities))

    asking = [threading.Thread(target=ask) for _ in range(MANY)]
    for thread in asking:
        thread.start()
    with ServerProcess("--workers", "2", "--host", host, "--grpc-port", str(port)):
        for thread in asking:
            thread.join()
    assert answers == [10] * 5 * MANY


def test_auto_on_one_core_is_one_process() -> None:
    if not Path("/usr/bin/taskset").exists():
        pytest.skip("taskset is not installed; it comes with util-linux")
    with ServerProcess("--workers", "auto", cpus="0") as server:
        assert workers_of(server) == {}
        _, stderr = server.stop()
    assert "cores: 1 to use (bound to 1" in stderr
    assert "threads: 1 x 1 for the model, 1 x 1 for image files" in stderr


def test_models_change_in_all_workers_at_once(tmp_path: Path, transport: str) -> None:
    put(tmp_path, 1, answering(1))
    flags = ("--workers", "2", "--transport", transport, "--models-dir", str(tmp_path), "--model-control", "explicit")
    with ServerProcess(*flags) as server, grpc.insecure_channel(server.grpc_address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        load = pb.RepositoryModelLoadRequest(model_name="digits")
        put(tmp_path, 2, answering(2))
        stub.RepositoryModelLoad(load)
        assert versions_seen(server) == {"2"}
        assert states(stub) == [("2", "READY")]

        put(tmp_path, 3, b"no model")
        with pytest.raises(grpc.RpcError) as error:
            stub.RepositoryModelLoad(load)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        # Both refuse it for the same reason, which is told once.
        assert (error.value.details() or "").count("cannot load the model") == 1
        assert versions_seen(server) == {"2"}
        assert states(stub) == [("2", "READY"), ("3", "UNAVAILABLE")]
        assert server.metric("digitserve_model_loads_total", outcome="refused") == 2

        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="digits"))
        assert server.metric("digitserve_ready") == 0
        with channels(server) as many:
            asked = pb.ModelReadyRequest(name="digits")
            ready = {GRPCInferenceServiceStub(each).ModelReady(asked).ready for each in many}
        assert ready == {False}
        # One that starts now has no model, either.
        shutil.rmtree(tmp_path / "digits" / "3")
        pid = workers_of(server)[0]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: workers_of(server).get(0, pid) != pid, REPLACED_S)
        stub.RepositoryModelLoad(load, wait_for_ready=True)
        assert versions_seen(server) == {"2"}


def test_workers_follow_the_folder_together(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    flags = ("--workers", "2", "--models-dir", str(tmp_path), "--model-control", "poll", "--model-poll-s", "0.2")
    with ServerProcess(*flags) as server:
        put(tmp_path, 2, answering(2))
        wait_until(lambda: versions_seen(server) == {"2"}, REPLACED_S)


def test_a_new_worker_answers_with_what_the_others_answer_with(tmp_path: Path) -> None:
    """The folder may have changed since they started, which without --model-control means nothing."""
    put(tmp_path, 1, answering(1))
    with ServerProcess("--workers", "2", "--models-dir", str(tmp_path)) as server:
        put(tmp_path, 2, answering(2))
        end_worker(server, 1)
        assert versions_seen(server) == {"1"}
