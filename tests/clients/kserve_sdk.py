"""KServe's Python client, over gRPC and over REST."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


def request(model: str, values: Any, datatype: str, binary: bool) -> Any:
    given = InferInput(name="image", shape=list(values.shape), datatype=datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[given])


def probabilities(answer: Any) -> Any:
    return next(each for each in answer.outputs if each.name == "probabilities").as_numpy()


def check_grpc(target: Any) -> None:
    async def run() -> None:
        async with InferenceGRPCClient(target.grpc) as client:
            assert await client.is_server_live() and await client.is_server_ready()
            assert await client.is_model_ready("digits")
            files = np.array(target.files, dtype=np.object_)
            answer = await client.infer(request("digits_image", files, "BYTES", True))
            assert probabilities(answer).argmax(1).tolist() == list(range(10))
            blank = np.zeros((2, 1, 28, 28))
            expected = await client.infer(request("digits", blank.astype(np.uint8), "UINT8", True))
            assert probabilities(expected).shape == (2, 10)
            for values, datatype in ((blank.astype(np.uint8), "UINT8"), (blank.astype(np.float32), "FP32")):
                answer = await client.infer(request("digits", values, datatype, False))
                assert np.allclose(probabilities(answer), probabilities(expected))

    asyncio.run(run())


def check_rest(target: Any) -> None:
    async def run() -> None:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        address = f"http://{target.http}"
        assert await client.is_server_live(address) and await client.is_server_ready(address)
        assert await client.is_model_ready(address, "digits")
        assert not await client.is_model_ready(address, "nothing")
        files = np.array(target.files, dtype=np.object_)
        answer = await client.infer(address, request("digits_image", files, "BYTES", True), model_name="digits_image")
        assert probabilities(answer).argmax(1).tolist() == list(range(10))
        for binary in (True, False):
            blank = request("digits", np.zeros((2, 1, 28, 28), np.uint8), "UINT8", binary)
            answer = await client.infer(address, blank, model_name="digits")
            assert probabilities(answer).shape == (2, 10)
        await client.close()

    asyncio.run(run())
