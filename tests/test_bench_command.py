"""What `digitserve bench` makes of what it measures, and over how many connections it asks."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from protos import digits_pb2 as pb
from service.client.client_channel import PLAINTEXT
from service.commands.bench import Figures, Load
from tests.listening import listening


@pytest.mark.parametrize("rate", [None, 1000])
async def test_bench_asks_over_several_connections_at_once(rate: float | None) -> None:
    """Of several workers, each has the calls of the connections it was given."""
    peers = set()

    async def answer(request: bytes, context: Any) -> bytes:
        peers.add(context.peer())
        return pb.ClassifyResponse().SerializeToString()

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    server.add_registered_method_handlers("digits.v1.DigitClassifier", {"Classify": handler})
    async with listening(server) as address:
        load = Load([b"picture"], address, timeout_s=30, access=PLAINTEXT)
        figures = await load.run(1, in_flight=5, rate=rate, connections=3)
    assert not figures.errors and len(peers) == 3
    assert figures.asked.endswith(", 3 connections")


def test_bench_says_when_the_client_and_not_the_server_was_measured() -> None:
    latencies = [0.010] * 99 + [0.100]
    kept = Figures("100 a second were due", 1.0, 0.5, latencies, late=[0.0001] * 99 + [0.019])
    assert len([*kept.lines()]) == 2
    late = Figures("100 a second were due", 1.0, 0.5, latencies, late=[0.003] * 100, not_begun=7)
    left, doubt = [*late.lines()][2:]
    assert left == "7 calls that were due were not begun by the end"
    assert doubt.startswith("this client did not keep the rate: half of the calls began 3.0 ms or more")
    busy = Figures("8 in flight", 1.0, 0.97, latencies)
    assert [*busy.lines()][2].startswith("this client used 97% of a core and may be slower than the server")


def test_bench_counts_what_failed_by_status() -> None:
    figures = Figures("8 in flight", 1.0, 0.1)
    for status, text in (("UNAVAILABLE", "draining"), *[("DEADLINE_EXCEEDED", f"after {ms} ms") for ms in (9, 8, 9)]):
        figures.failed(status, text)
    assert [*figures.lines()] == [
        "0 calls answered in 1.0 s, 0 a second; 8 in flight",
        "3 calls ended with DEADLINE_EXCEEDED: after 9 ms (and other texts)",
        "1 calls ended with UNAVAILABLE: draining",
    ]
