"""What calls leave behind in a server's memory (O8), and how often our client asks again (O13).

python -m tests.robustness.measure_calls --transport native
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import grpc
import numpy as np

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.client import AsyncClient, ClassifyError
from tests.listening import listening
from tests.robustness.goodcaller import BLANK
from tests.robustness.processes import resident_bytes
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from protos.digits_pb2_grpc import DigitClassifierAsyncStub as Stub

WINDOWS, TOGETHER = 3, 50
ITEM = pb.ClassifyStreamRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
NO_PICTURE = pb.ClassifyRequest(image=b"no picture")
FAILING_SHARE = 0.3


async def answered(stub: Stub) -> None:
    """A call that gets its answer."""
    await stub.Classify(BLANK)


async def failed(stub: Stub) -> None:
    """A call that gets an error."""
    await stub.Classify(NO_PICTURE).code()


async def cancelled(stub: Stub) -> None:
    """A call that its caller gives up, somewhere between sending it and the answer."""
    call = stub.Classify(BLANK)
    await asyncio.sleep(random.random() * 0.02)
    call.cancel()


async def cancelled_stream(stub: Stub) -> None:
    """A stream that its caller leaves after the first answer."""
    call = stub.ClassifyStream()
    await call.write(ITEM)
    await call.read()
    call.cancel()


async def growth(server: ServerProcess, call: Callable[[Stub], Awaitable[None]], calls: int) -> None:
    """Print what each window of so many calls leaves in memory."""
    resident = [resident_bytes(server.process.pid)]
    began = time.monotonic()
    for _ in range(WINDOWS):
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            stub: Stub = digits_pb2_grpc.DigitClassifierStub(channel)
            for _ in range(calls // TOGETHER):
                await asyncio.gather(*(call(stub) for _ in range(TOGETHER)))
        await asyncio.sleep(1)
        resident.append(resident_bytes(server.process.pid))
    a_call = (resident[-1] - resident[1]) / (WINDOWS - 1) / calls
    windows = ", ".join(f"{(after - before) / 1e6:+.2f}" for before, after in itertools.pairwise(resident))
    print(
        f"O8   {call.__name__:18} {WINDOWS} x {calls} in {time.monotonic() - began:.0f} s: {windows} MB, "
        f"{a_call:.0f} bytes a call in the last {WINDOWS - 1}",
        flush=True,
    )


async def attempts() -> None:
    """Print how often our client asks a server that fails at random."""
    asked, chance = 0, random.Random(1)

    async def classify(request: object, context: grpc.aio.ServicerContext[object, object]) -> pb.ClassifyResponse:
        nonlocal asked
        asked += 1
        if chance.random() < FAILING_SHARE:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        return pb.ClassifyResponse()

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        classify, pb.ClassifyRequest.FromString, pb.ClassifyResponse.SerializeToString
    )
    methods = grpc.method_handlers_generic_handler("digits.v1.DigitClassifier", {"Classify": handler})
    server.add_generic_rpc_handlers((methods,))
    blank = np.zeros((28, 28), np.uint8)
    async with listening(server) as address, AsyncClient(address) as client:
        for _ in range(5):
            before, lost = asked, 0
            for _ in range(200):
                try:
                    await client.classify(blank)
                except ClassifyError:
                    lost += 1
            a_call = (asked - before) / 200
            print(f"O13  200 calls, {FAILING_SHARE:.0%} of attempts fail: {a_call:.2f} attempts a call, {lost} lost")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What calls leave behind.")
    parser.add_argument("--transport", default="grpcio")
    parser.add_argument("--calls", type=int, default=20_000, help="of each kind in a window")
    arguments = parser.parse_args()
    with ServerProcess("--transport", arguments.transport) as server:
        for call in (answered, failed, cancelled, cancelled_stream):
            asyncio.run(growth(server, call, arguments.calls))
    asyncio.run(attempts())


if __name__ == "__main__":
    main()
