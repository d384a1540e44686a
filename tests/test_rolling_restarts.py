"""Servers that are restarted one after the other, as a rollout does it, while callers go on asking."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.client import AsyncClient, ClassifyError
from tests.server_process import ServerProcess, wait_until

# Nobody else is given ports of these by chance.
HOSTS = ("127.77.0.1", "127.77.0.2")
RESTARTS = 16
CALLERS = 8
CALLS = 25_000
METHODS = ("Classify", "ClassifyBatch")
RAW_BLANK = pb.ClassifyBatchRequest(format=pb.IMAGE_FORMAT_RAW_28X28, images=[bytes(784)])
RETRYING = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


class Callers:
    """Callers who ask without pause until it is over."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self.is_over = False

    async def ask(self, classify: Callable[[], Awaitable[object]]) -> None:
        while not self.is_over:
            try:
                await classify()
                self.answered += 1
            except grpc.aio.AioRpcError as error:
                self.failed.append(error.code().name)
            except ClassifyError as error:
                self.failed.append(error.code)


def start(host: str, port: str = "0") -> ServerProcess:
    return ServerProcess("--host", host, "--grpc-port", port, "--drain-delay-s", "1.5")


def is_found(server: ServerProcess) -> bool:
    """Whether callers of both kinds, who can be told by their calls, have come to a server."""
    return all(server.metric("grpc_server_handled_total", grpc_method=method, grpc_code="OK") for method in METHODS)


async def restart_one_after_the_other(servers: list[ServerProcess], enough: Callable[[], bool]) -> None:
    """At least so often, and until there were enough calls; the next one goes when callers have found the last one."""
    restarts = 0
    while restarts < RESTARTS or not enough():
        number = restarts % len(servers)
        code, _ = await asyncio.to_thread(servers[number].stop)
        assert code == 0
        port = servers[number].grpc_address.rpartition(":")[2]
        servers[number] = await asyncio.to_thread(start, HOSTS[number], port)
        await asyncio.to_thread(wait_until, functools.partial(is_found, servers[number]), 60)
        restarts += 1


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine only on Linux")
async def test_l2_l3_sixteen_rolling_restarts_of_two_servers_lose_no_call_of_whoever_looks_at_their_health() -> None:
    """L2: our client, which watches the health of every server and here never asks twice, loses nothing.

    L3: whoever does not watch but repeats UNAVAILABLE loses at most what it had in flight, and that as CANCELLED.
    """
    servers = [await asyncio.to_thread(start, host) for host in HOSTS]
    addresses = "ipv4:" + ",".join(server.grpc_address for server in servers)
    watching, retrying = Callers(), Callers()
    options = [("grpc.service_config", json.dumps(RETRYING))]
    try:
        async with (
            AsyncClient(addresses, max_attempts=1) as client,
            grpc.aio.insecure_channel(addresses, options=options) as channel,
        ):
            stub, blank = digits_pb2_grpc.DigitClassifierStub(channel), np.zeros((28, 28), np.uint8)
            asking = [asyncio.create_task(watching.ask(lambda: client.classify(blank))) for _ in range(CALLERS)]
            asking += [asyncio.create_task(retrying.ask(lambda: stub.ClassifyBatch(RAW_BLANK))) for _ in range(CALLERS)]
            await restart_one_after_the_other(servers, lambda: watching.answered >= CALLS)
            watching.is_over = retrying.is_over = True
            await asyncio.gather(*asking)
    finally:
        for server in servers:
            server.stop()
    print(f"{watching.answered} and {retrying.answered} calls, lost {watching.failed} and {retrying.failed}")
    assert watching.failed == []
    assert retrying.failed == ["CANCELLED"] * len(retrying.failed)
    assert len(retrying.failed) <= CALLERS
    assert min(watching.answered, retrying.answered) > 0
