"""Workers that hang are found, ended and replaced: real processes, stopped by a signal.

L7 of the list in docs/robustness.md; `test_patience` shows what else counts as hanging.
"""

from __future__ import annotations

import os
import signal
import urllib.error

import grpc
import pytest

from protos.grpc_service_pb2 import RepositoryModelLoadRequest
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.processes.patience import LOOK_S, STILL_LOOKS
from service.processes.worker_process import BEAT_S
from tests.server_process import ServerProcess, wait_until
from tests.worker_processes import REPLACED_S, is_alive, workers_of

# Ten times what it takes to find that a worker hangs, on a machine that does other things as well.
FOUND_S = 10 * (BEAT_S + STILL_LOOKS * LOOK_S)


def test_l7_a_hung_worker_is_ended_and_replaced_and_readiness_tells(transport: str) -> None:
    """L7."""
    with ServerProcess("--workers", "2", "--transport", transport) as server:
        pid = workers_of(server)[0]
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: not is_alive(pid), FOUND_S)
        assert server.get(f"{server.ops_url}/readyz") == "ok\n"
        wait_until(lambda: server.metric("digitserve_workers") == 2, REPLACED_S)
        assert not is_alive(pid)
        assert server.metric("digitserve_worker_ends_total", how="hung") == 1
        _, stderr = server.stop()
    assert f"worker 0 (process {pid}) hung and was ended; another one takes its place" in stderr


@pytest.mark.slow
def test_l7_a_worker_that_hangs_while_it_starts_holds_up_nobody() -> None:
    """L7: models change meanwhile, and other workers are replaced."""
    with ServerProcess("--workers", "2", "--model-control", "explicit") as server:
        first, second = workers_of(server).values()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: workers_of(server).get(0, first) != first, REPLACED_S)
        hung = workers_of(server)[0]
        os.kill(hung, signal.SIGSTOP)
        with grpc.insecure_channel(server.grpc_address) as channel:
            load = RepositoryModelLoadRequest(model_name="digits")
            GRPCInferenceServiceStub(channel).RepositoryModelLoad(load, wait_for_ready=True, timeout=REPLACED_S)
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: server.metric("digitserve_worker_ends_total", how="ended") == 2, REPLACED_S)
        wait_until(lambda: server.metric("digitserve_workers") == 2, REPLACED_S)
        assert server.metric("digitserve_worker_ends_total", how="hung") == 1
        assert not is_alive(hung)


@pytest.mark.slow
def test_l7_while_all_workers_hang_the_server_is_not_ready() -> None:
    """L7: it is alive, since it is about to help itself."""
    with ServerProcess("--workers", "2") as server:
        for pid in workers_of(server).values():
            os.kill(pid, signal.SIGSTOP)

        def is_ready() -> bool:
            try:
                return server.get(f"{server.ops_url}/readyz") == "ok\n"
            except urllib.error.HTTPError as error:
                with error:
                    return error.code != 503

        wait_until(lambda: not is_ready(), REPLACED_S)
        assert server.get(f"{server.ops_url}/livez") == "ok\n"
        wait_until(is_ready, REPLACED_S)
