"""S3: what a hundred thousand names that callers invent leave in `/metrics`.

python -m tests.robustness.measure_names
"""

from __future__ import annotations

import asyncio
import time

import grpc

from protos import grpc_service_pb2 as oip
from protos.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.robustness.processes import resident_bytes
from tests.server_process import ServerProcess

NAMES, IN_FLIGHT = 100_000, 64


async def ask_for(names: int, address: str) -> None:
    """Ask for so many models that are not there."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)

        async def ask(first: int) -> None:
            for number in range(first, names, IN_FLIGHT):
                request = oip.ModelInferRequest(model_name=f"name-{number}", model_version=str(number))
                await stub.ModelInfer(request, metadata=(("x-request-id", f"request-{number}"),)).code()

        await asyncio.gather(*map(ask, range(IN_FLIGHT)))


def main() -> None:
    """Measure and print."""
    with ServerProcess() as server:

        def series() -> int:
            return sum(not line.startswith("#") for line in server.get(f"{server.ops_url}/metrics").splitlines())

        asyncio.run(ask_for(500, server.grpc_address))
        before, base = series(), resident_bytes(server.process.pid)
        asyncio.run(ask_for(NAMES, server.grpc_address))
        began = time.perf_counter()
        after = series()
        took = time.perf_counter() - began
        grown = (resident_bytes(server.process.pid) - base) / 1e6
    print(f"S3   {NAMES} names: {after - before:+d} series, {grown:+.1f} MB; a scrape takes {took * 1000:.0f} ms")


if __name__ == "__main__":
    main()
