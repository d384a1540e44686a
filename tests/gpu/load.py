"""Calls to a server from a process of its own, for some seconds; prints what became of them as JSON.

load.py ADDRESS KIND SECONDS IN_FLIGHT, where KIND is unary, batch (512 images a call) or stream.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

import numpy as np

from service.client import AsyncClient, ClassifyError
from tests.mnist_files import small_digits

BATCH = 512


async def load(address: str, kind: str, seconds: float, in_flight: int) -> dict[str, list[float]]:
    """Ask for digits with so many calls in flight; returns images answered, and seconds of each call."""
    digits, _ = small_digits("t10k")
    batch = list(np.resize(digits, (BATCH, 28, 28)))
    images, latencies = [0.0], []
    async with AsyncClient(address, timeout_s=60) as client:
        end = time.perf_counter() + seconds

        async def call() -> None:
            while time.perf_counter() < end:
                began = time.perf_counter()
                if kind == "unary":
                    await client.classify(digits[0])
                    images[0] += 1
                else:
                    results = await client.classify_batch(batch)
                    if any(isinstance(result, ClassifyError) for result in results):
                        raise RuntimeError("an image of the batch was refused: what it does is no figure")
                    images[0] += len(results)
                latencies.append(time.perf_counter() - began)

        async def endless() -> AsyncIterator[np.ndarray]:
            while time.perf_counter() < end:
                for image in batch:
                    yield image

        async def stream() -> None:
            async for _ in client.classify_stream(endless()):
                images[0] += 1

        await asyncio.gather(*(stream() if kind == "stream" else call() for _ in range(in_flight)))
    return {"images": images, "latencies": latencies}


def main() -> None:
    """The process."""
    address, kind, seconds, in_flight = sys.argv[1:]
    print(json.dumps(asyncio.run(load(address, kind, float(seconds), int(in_flight)))))


if __name__ == "__main__":
    main()
