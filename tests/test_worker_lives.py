"""How workers end and are replaced, and how a server of several ends: real processes, real signals.

Those that hang are in test_hung_workers.

The IDs are those of the list in docs/robustness.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import operator
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import grpc
import numpy as np
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from protos.grpc_service_pb2 import ModelStatisticsRequest
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.client import AsyncClient
from tests.answering import answering, overflowing, put
from tests.pictures import encode, on_paper
from tests.server_process import COMMAND, ServerProcess, wait_until
from tests.worker_processes import REPLACED_S, connections, end_worker, is_alive, workers_of

RAW_BLANK = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
CALLERS = 16


class Callers:
    """Callers who ask without pause, each over a connection of its own, and never again what has failed."""

    def __init__(self, address: str):
        """Begin to ask when entered."""
        self.answered = [0] * CALLERS
        # The caller and the code of each call that failed.
        self.failed: list[tuple[int, str]] = []
        self._address = address
        self._is_over = False

    async def __aenter__(self) -> Callers:
        self._tasks = [asyncio.create_task(self._ask(caller)) for caller in range(CALLERS)]
        await self.more()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def more(self) -> None:
        """Return when every one of them has got some more answers."""
        wanted = [answered + 5 for answered in self.answered]
        await asyncio.to_thread(wait_until, lambda: all(map(operator.ge, self.answered, wanted)), REPLACED_S)

    async def _ask(self, caller: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            while not self._is_over:
                try:
                    await stub.Classify(RAW_BLANK, wait_for_ready=True, timeout=30)
                    self.answered[caller] += 1
                except grpc.aio.AioRpcError as error:
                    self.failed.append((caller, error.code().name))


async def test_l5_a_killed_worker_takes_along_only_the_calls_it_held(transport: str) -> None:
    """L5: without a retry policy, a caller of the dead worker loses what it sends until it sees the connection broken.

    That is the call in flight, and at times one or two more, written before gRPC has read the end of the connection.
    """
    with ServerProcess("--workers", "2", "--transport", transport) as server:
        pid = workers_of(server)[0]
        port = int(server.grpc_address.rpartition(":")[2])
        async with Callers(server.grpc_address) as callers:
            held = connections(pid, port)
            await asyncio.to_thread(end_worker, server, 0)
            await callers.more()
        assert held > 0
        assert {code for _, code in callers.failed} <= {"UNAVAILABLE"}
        assert len({caller for caller, _ in callers.failed}) <= held
        assert server.metric("digitserve_worker_ends_total", how="ended") == 1
        assert server.get(f"{server.ops_url}/readyz") == "ok\n"
        code, stderr = await asyncio.to_thread(server.stop)
    assert code == 0
    assert f"worker 0 (process {pid}) was ended by SIGKILL; another one takes its place" in stderr
    assert " worker 0 service.model.loading: model digits/1 answers now" in stderr


@pytest.mark.slow
async def test_l5_with_retries_a_killed_worker_takes_no_call_along(transport: str) -> None:
    """L5: our client asks again by itself."""

    async def ask(over: asyncio.Event) -> int:
        answered = 0
        async with AsyncClient(server.grpc_address) as client:
            while not over.is_set():
                await client.classify(np.zeros((28, 28), np.uint8))
                answered += 1
        return answered

    def end_both() -> None:
        for number in (0, 1):
            seen = server.metric("digitserve_predictions_total")
            wait_until(functools.partial(_has_grown, server, seen + 200), REPLACED_S)
            end_worker(server, number)

    with ServerProcess("--workers", "2", "--transport", transport) as server:
        over = asyncio.Event()
        asking = [asyncio.create_task(ask(over)) for _ in range(CALLERS)]
        await asyncio.to_thread(end_both)
        over.set()
        answered = await asyncio.gather(*asking)
    assert min(answered) > 0


def _has_grown(server: ServerProcess, to: float) -> bool:
    return server.metric("digitserve_predictions_total") >= to


async def test_what_a_dead_worker_has_counted_stays_in_the_sums() -> None:
    with ServerProcess("--workers", "2") as server:
        async with Callers(server.grpc_address):
            pass
        before = server.metric("digitserve_predictions_total")
        assert before >= 5 * CALLERS
        assert images_run(server) == before
        for number in (0, 1):
            await asyncio.to_thread(end_worker, server, number)
        assert server.metric("digitserve_predictions_total") == before
        assert images_run(server) == before


def images_run(server: ServerProcess) -> int:
    """As ModelStatistics tells it."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        asked = ModelStatisticsRequest(name="digits")
        model, *others = GRPCInferenceServiceStub(channel).ModelStatistics(asked, timeout=30).model_stats
        assert not others
        return model.inference_count


@pytest.mark.slow
async def test_l6_connections_end_after_a_while_so_that_a_new_worker_gets_its_part() -> None:
    """L6: at least 30 % of them, and no call is lost over it."""
    with ServerProcess("--workers", "2", "--connection-age-s", "1") as server:
        await asyncio.to_thread(end_worker, server, 0)
        port = int(server.grpc_address.rpartition(":")[2])
        async with Callers(server.grpc_address) as callers:
            await asyncio.to_thread(end_worker, server, 1)
            lost_by_the_kill = len(callers.failed)
            pid = workers_of(server)[1]
            await asyncio.to_thread(wait_until, lambda: connections(pid, port) >= 0.3 * CALLERS, REPLACED_S)
            await callers.more()
        assert len(callers.failed) == lost_by_the_kill


@pytest.mark.slow
def test_l8_when_no_worker_stays_alive_the_server_ends_with_one_clear_line(tmp_path: Path) -> None:
    """L8: the model has been replaced by one that ends every process that loads it."""
    put(tmp_path, 1, answering(1))
    with ServerProcess("--workers", "2", "--models-dir", str(tmp_path)) as server:
        put(tmp_path, 1, overflowing())
        for pid in workers_of(server).values():
            os.kill(pid, signal.SIGKILL)
        server.process.wait(60)
        code, stderr = server.stop()
    assert code == 4
    last = stderr.splitlines()[-1]
    assert last.startswith("digitserve: no worker stays alive: ")
    assert last.endswith("the last one was ended by SIGSEGV")
    assert "Traceback" not in stderr


def test_a_second_signal_ends_all_workers_at_once() -> None:
    with ServerProcess("--workers", "2", "--drain-delay-s", "60") as server:
        workers = workers_of(server)
        server.send(signal.SIGTERM)
        wait_until(lambda: server.metric("digitserve_ready") == 0)
        code, stderr = server.stop()
        wait_until(lambda: not any(map(is_alive, workers.values())), REPLACED_S)
    assert code == 128 + signal.SIGTERM
    assert "SIGTERM: exiting at once" in stderr


def test_l1_a_signal_to_all_processes_of_a_server_drains_as_one_to_its_supervisor_does() -> None:
    """L1: as systemd ends a service. What a worker has heard already, it hears again from its supervisor."""
    photo = encode(on_paper(np.eye(28, dtype=np.uint8) * 255, scale=60))
    with (
        ServerProcess("--workers", "2", "--drain-delay-s", "2") as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        call = digits_pb2_grpc.DigitClassifierStub(channel).ClassifyBatch.future(
            pb.ClassifyBatchRequest(images=[photo] * 16), timeout=60
        )
        wait_until(lambda: server.metric("digitserve_decode_seconds_count") > 0)
        workers = workers_of(server).values()
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: server.metric("digitserve_ready") == 0)
        for pid in (server.process.pid, *workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        assert len(call.result().results) == 16
        server.process.wait(60)
        code, stderr = server.stop()
    assert code == 0
    assert "exiting at once" not in stderr


def test_a_server_told_to_end_while_a_worker_is_replaced_ends_in_order() -> None:
    """The worker that is gone had nothing to finish any more, and the one that starts has nothing yet."""
    with ServerProcess("--workers", "2") as server:
        os.kill(workers_of(server)[0], signal.SIGKILL)
        wait_until(lambda: server.metric("digitserve_worker_ends_total") == 1)
        code, _ = server.stop()
    assert code == 0


def test_workers_do_not_outlive_their_supervisor() -> None:
    with ServerProcess("--workers", "2") as server:
        workers = workers_of(server)
        assert len(workers) == 2
        server.stop(signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, workers.values())), REPLACED_S)


@pytest.mark.slow
def test_a_worker_that_does_not_finish_is_ended_and_the_exit_code_says_so() -> None:
    with ServerProcess("--workers", "2", "--drain-timeout-s", "0") as server:
        pid = workers_of(server)[1]
        os.kill(pid, signal.SIGSTOP)
        code, stderr = server.stop()
    assert code == 1
    assert "1 of 2 workers did not finish" in stderr
    assert not is_alive(pid)


def test_workers_that_die_while_they_drain_are_named() -> None:
    with ServerProcess("--workers", "2", "--drain-delay-s", "60") as server:
        workers = workers_of(server)
        server.send(signal.SIGTERM)
        wait_until(lambda: server.metric("digitserve_ready") == 0)
        for pid in workers.values():
            os.kill(pid, signal.SIGKILL)
        server.process.wait(REPLACED_S)
        code, stderr = server.stop()
    assert code == 1
    for number, pid in workers.items():
        assert f"worker {number} (process {pid}) was ended by SIGKILL while it drained" in stderr


def test_a_killed_worker_leaves_no_files(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The native transport keeps a socket in a folder of its own."""
    # Short, since a socket's path is.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        with ServerProcess("--workers", "2", "--transport", transport) as server:
            end_worker(server, 0)
            folders = [*Path(folder).iterdir()]
            assert len(folders) == 2
            assert {path.name.partition("-")[0] for path in folders} == {"digitserve"}
            assert len([*Path(folder).glob("*/pygrpc-native-*")]) == (2 if transport == "native" else 0)
            server.stop()
        assert [*Path(folder).iterdir()] == []


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--models-dir", "/nowhere"], "/nowhere/digits/<version>/model.onnx does not exist"),
        (["--device", "cuda"], "--device cuda does not work: it needs CUDAExecutionProvider"),
    ],
)
def test_a_failed_start_of_workers_is_one_line_and_the_same_exit_code(flags: list[str], text: str) -> None:
    ports = ["--grpc-port", "0", "--http-port", "0", "--ops-port", "0"]
    command: list[str | Path] = [COMMAND, "serve", "--workers", "2", *ports, *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert text in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""


def test_a_model_that_ends_the_first_workers_is_a_failed_start(tmp_path: Path) -> None:
    put(tmp_path, 1, overflowing())
    ports = ["--grpc-port", "0", "--http-port", "0", "--ops-port", "0"]
    command: list[str | Path] = [COMMAND, "serve", "--workers", "2", *ports, "--models-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "was ended by SIGSEGV before it was ready" in ended.stderr
