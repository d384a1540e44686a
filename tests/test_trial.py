"""A model that is tried in a process of its own, by a real server."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import grpc

from protos import grpc_service_pb2 as pb
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.answering import answering, put
from tests.server_process import ServerProcess, wait_until


def test_e6_a_trial_in_progress_does_not_hold_up_the_end(tmp_path: Path) -> None:
    put(tmp_path, 1, answering(1))
    flags = ("--models-dir", str(tmp_path), "--model-control", "explicit", "--drain-timeout-s", "1")
    with ServerProcess(*flags) as server, grpc.insecure_channel(server.grpc_address) as channel:
        put(tmp_path, 2, answering(2))
        request = pb.RepositoryModelLoadRequest(model_name="digits")
        call = GRPCInferenceServiceStub(channel).RepositoryModelLoad.future(request)
        wait_until(lambda: bool(children_of(server.process.pid)))
        os.kill(children_of(server.process.pid)[0], signal.SIGSTOP)
        code, _ = server.stop(timeout_s=30)
        assert code == 0
        assert call.exception() is not None


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
