"""What befalls a server that nobody attacks: processes that die, broken files, peers and descriptors that are gone.

Each starts a server of its own.
"""

from __future__ import annotations

import contextlib
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from protos import digits_pb2_grpc
from protos import grpc_service_pb2 as oip
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.answering import answering, overflowing, put
from tests.load import usage
from tests.robustness.beside import Row, beside
from tests.robustness.goodcaller import BLANK
from tests.robustness.http2 import Connection
from tests.server_process import ServerProcess
from tests.test_bad_versions import damaged
from tests.worker_processes import end_worker

RELOADS = 200
DESCRIPTORS = 64
CONNECTIONS = 100


def killed_workers(seconds: float, transport: str) -> Row:
    """L5: one worker after the other is killed; the good caller asks again, as our client does."""

    def kill(server: ServerProcess, until: float) -> str:
        killed = 0
        while time.monotonic() < until:
            end_worker(server, killed % 2)
            killed += 1
        return f"{killed} workers killed and replaced"

    with ServerProcess("--workers", "2", "--transport", transport) as server:
        return beside(server, kill, seconds, max_attempts=5)


def reload_storm(seconds: float, transport: str) -> Row:
    """E1, E2: broken files in the place of the next version, then one that ends the process that tries it."""
    with tempfile.TemporaryDirectory() as folder:
        models, versions = Path(folder), {"1"}
        put(models, 1, answering(1))

        def load(stub: GRPCInferenceServiceStub) -> None:
            call = stub.RepositoryModelLoad.future(oip.RepositoryModelLoadRequest(model_name="digits"), timeout=60)
            error = call.exception()
            refused = isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert refused, f"a broken model was not refused: {error}"

        def storm(server: ServerProcess, until: float) -> str:
            chance = random.Random(1)
            with grpc.insecure_channel(server.grpc_address) as channel:
                stub = GRPCInferenceServiceStub(channel)
                for _ in range(RELOADS):
                    put(models, 2, answering(2))
                    (models / "digits/2/model.onnx").write_bytes(damaged(answering(2), chance))
                    load(stub)
                put(models, 2, overflowing())
                load(stub)
                ask = digits_pb2_grpc.DigitClassifierStub(channel)
                assert ask.Classify(BLANK).model_version == "1", "another version answers"
            return f"{RELOADS} broken files and a deadly one refused"

        with ServerProcess("--models-dir", folder, "--model-control", "explicit", "--transport", transport) as server:
            row = beside(server, storm, seconds)
        assert row.good.versions == versions, f"versions {row.good.versions} answered"
        return row


def few_descriptors(seconds: float, transport: str) -> Row:
    """T6: more connections than the process may have descriptors."""

    def open_more(server: ServerProcess, until: float) -> str:
        pid = server.process.pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS):
                stack.enter_context(Connection(server.grpc_address, timeout_s=5)).greet()
            began, before = time.monotonic(), usage.cpu_seconds(pid)
            time.sleep(max(until - began, 1))
            share = (usage.cpu_seconds(pid) - before) / (time.monotonic() - began)
        began = time.monotonic()
        with grpc.insecure_channel(server.grpc_address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            digits_pb2_grpc.DigitClassifierStub(channel).Classify(BLANK, timeout=30, wait_for_ready=True)
        return (
            f"{CONNECTIONS} connections, {share:.0%} of a core for them and the good caller, "
            f"a new caller answered {time.monotonic() - began:.1f} s after them"
        )

    with ServerProcess("--transport", transport) as server:
        return beside(server, open_more, seconds)


FAULTS: dict[str, Callable[[float, str], Row]] = {
    "L5 killed workers": killed_workers,
    "E1 reload storm": reload_storm,
    "T6 few descriptors": few_descriptors,
}
