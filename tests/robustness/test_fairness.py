"""O10: a greedy caller beside a modest one, over both transports."""

from __future__ import annotations

import asyncio
import json
import urllib.request

import grpc
import pytest

from protos import digits_pb2_grpc
from service.server import running
from tests import test_server
from tests.robustness.test_overload import INK, Held
from tests.test_server import RAW_BLANK, free_ports, replace_model, until_metrics_show

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def held(transport: str, monkeypatch: pytest.MonkeyPatch) -> Held:
    """The model of the servers that a test starts."""
    monkeypatch.setitem(test_server.DEFAULTS, "transport", transport)
    model = Held()
    replace_model(monkeypatch, model.run)
    return model


async def test_o10_a_greedy_connection_makes_no_other_wait_and_fills_no_queue(held: Held) -> None:
    """It has 90 calls waiting, all there is room for; who asks by another connection, or over HTTP, is next."""
    async with (
        running(free_ports(max_run_images=1, max_queue_images=90, max_batch_images=90)) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", OWN_CONNECTION) as many,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", OWN_CONNECTION) as one,
    ):
        greedy, modest = digits_pb2_grpc.DigitClassifierStub(many), digits_pb2_grpc.DigitClassifierStub(one)
        calls = [greedy.Classify(RAW_BLANK)]
        await asyncio.to_thread(held.entered.wait, 20)
        calls += [greedy.Classify(RAW_BLANK) for _ in range(90)]
        await until_metrics_show(server.ops_port, "digitserve_queue_images 90.0")
        assert await greedy.Classify(RAW_BLANK).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        calls += [modest.Classify(INK)]
        await until_metrics_show(server.ops_port, "digitserve_queue_images 91.0")
        url = f"http://127.0.0.1:{server.http_port}/v2/models/digits/infer"
        tensor = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "UINT8", "data": [99] * 784}
        body = json.dumps({"inputs": [tensor]}).encode()
        over_http = asyncio.create_task(asyncio.to_thread(urllib.request.urlopen, url, body, 30))
        await until_metrics_show(server.ops_port, "digitserve_queue_images 92.0")
        held.may_go_on.set()
        await asyncio.gather(*calls)
        (await over_http).close()
    assert held.pixels[:4] == [0, 0, 255, 99]
