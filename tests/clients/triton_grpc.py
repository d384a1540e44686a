"""tritonclient over gRPC: blocking, with a callback, asyncio, streaming; every getter; every kind of refusal."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException


def files_input(files: list[bytes]) -> list[Any]:
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(files, dtype=np.object_))
    return [tensor]


def pixels_input(pixels: Any, datatype: str = "UINT8", name: str = "image") -> list[Any]:
    tensor = triton.InferInput(name, list(pixels.shape), datatype)
    tensor.set_data_from_numpy(pixels)
    return [tensor]


def seen(client: Any, files: list[bytes]) -> Any:
    """The pixels of picture files, uint8 (N, 1, 28, 28)."""
    answer = client.infer("digits_image", files_input(files), outputs=[triton.InferRequestedOutput("seen")])
    return answer.as_numpy("seen").reshape(-1, 1, 28, 28)


def check_every_getter(target: Any) -> None:
    with triton.InferenceServerClient(target.grpc) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("digits") and client.is_model_ready("digits_image", "1")
        assert not client.is_model_ready("digits", "99") and not client.is_model_ready("nothing")
        metadata = client.get_server_metadata(as_json=True)
        assert metadata["name"] == "digitserve" and "statistics" in metadata["extensions"]
        assert client.get_model_metadata("digits").inputs[0].shape == [-1, 1, 28, 28]
        assert client.get_model_config("digits").config.max_batch_size == 1024
        assert client.get_model_config("digits").config.WhichOneof("scheduling_choice") == "dynamic_batching"
        client.infer("digits", pixels_input(np.zeros((1, 1, 28, 28), np.uint8)))
        statistics = client.get_inference_statistics("digits", "1").model_stats[0]
        assert statistics.inference_stats.success.count > 0 and statistics.inference_count > 0
        index = client.get_model_repository_index(as_json=True)["models"]
        assert {"name": "digits", "version": "1", "state": "READY"} in index


def check_layers(target: Any) -> None:
    with triton.InferenceServerClient(target.grpc) as client:
        told = client.get_model_metadata("digits_explain").outputs
        answer = client.infer("digits_explain", files_input(target.files))
        for output in told:
            value = answer.as_numpy(output.name)
            assert output.name == "seen" or [-1, *value.shape[1:]] == list(output.shape)
        relu, conv = answer.as_numpy("relu1"), answer.as_numpy("conv1")
        assert np.array_equal(relu, np.maximum(conv, 0)) and len(relu) == len(target.files)


def check_pixels_and_files_alike(target: Any) -> None:
    with triton.InferenceServerClient(target.grpc) as client:
        files = client.infer("digits_image", files_input(target.files), request_id="ten")
        response = files.get_response()
        assert (response.id, response.model_name, response.model_version) == ("ten", "digits_image", "1")
        assert files.as_numpy("probabilities").argmax(1).tolist() == list(range(10))
        assert files.as_numpy("digit_score").shape == (10,)
        assert files.as_numpy("seen") is None
        pixels = seen(client, target.files)
        for answer in (
            client.infer("digits", pixels_input(pixels)),
            client.infer("digits", pixels_input(pixels.astype(np.float32), "FP32"), model_version="1"),
        ):
            assert np.allclose(answer.as_numpy("probabilities"), files.as_numpy("probabilities"), atol=1e-6)


def check_compressed_requests(target: Any) -> None:
    with triton.InferenceServerClient(target.grpc) as client:
        answer = client.infer("digits_image", files_input(target.files), compression_algorithm="gzip")
        assert answer.as_numpy("probabilities").argmax(1).tolist() == list(range(10))


def check_requested_outputs_and_classes(target: Any) -> None:
    with triton.InferenceServerClient(target.grpc) as client:
        pixels = seen(client, target.files[:3])
        outputs = [triton.InferRequestedOutput("digit_score"), triton.InferRequestedOutput("probabilities", 2)]
        answer = client.infer("digits", pixels_input(pixels), outputs=outputs)
        assert [each.name for each in answer.get_response().outputs] == ["digit_score", "probabilities"]
        classes = answer.as_numpy("probabilities")
        assert classes.shape == (3, 2)
        assert [text.decode().split(":")[1:] for text in classes[:, 0]] == [["0", "0"], ["1", "1"], ["2", "2"]]


def check_parameters(target: Any) -> None:
    with triton.InferenceServerClient(target.grpc) as client:
        pixels = pixels_input(np.zeros((1, 1, 28, 28), np.uint8))
        client.infer("digits", pixels, priority=1, timeout=60_000_000, parameters={"mine": "x"})
        refused("the deadline passed", client, "digits_image", files_input(target.files), timeout=1)
        digit = np.zeros((1, 1, 28, 28), np.uint8)
        digit[..., 5:23, 12:16] = 255
        floats = pixels_input((digit / 255).astype(np.float32), "FP32")
        as_floats = client.infer("digits", floats, parameters={"pixel_max": 1}).as_numpy("probabilities")
        assert (as_floats == client.infer("digits", pixels_input(digit)).as_numpy("probabilities")).all()
        many = files_input(target.files * 50)
        refused("DEADLINE_EXCEEDED", client, "digits_image", many, client_timeout=0.005)


def check_what_is_refused(target: Any) -> None:
    with triton.InferenceServerClient(target.grpc) as client:
        pixels = np.zeros((1, 1, 28, 28), np.uint8)
        good = pixels_input(pixels)
        refused("StatusCode.NOT_FOUND] Request for unknown model: 'x' is not found", client, "x", good)
        refused("StatusCode.NOT_FOUND", client, "digits", good, model_version="99")
        refused("Expected [-1,1,28,28], got [28,28]", client, "digits", pixels_input(pixels[0, 0]))
        refused("datatype 'INT8'", client, "digits", pixels_input(pixels.astype(np.int8), "INT8"))
        refused("the request has 'picture'", client, "digits", pixels_input(pixels, name="picture"))
        refused("takes one input", client, "digits", good + good)
        unknown = [triton.InferRequestedOutput("nothing")]
        refused("unexpected inference output 'nothing'", client, "digits", good, outputs=unknown)
        many = pixels_input(np.zeros((1025, 1, 28, 28), np.uint8))
        refused("the limit is 1024 (--max-batch-images)", client, "digits", many)
        refused("image 1 of the batch", client, "digits_image", files_input([target.files[0], b"not a picture"]))
        for call, arguments in (
            (client.get_system_shared_memory_status, ()),
            (client.register_system_shared_memory, ("a", "b", 10)),
            (client.get_trace_settings, ()),
            (client.update_log_settings, ({},)),
        ):
            try:
                call(*arguments)
            except InferenceServerException as error:
                assert error.status() == "StatusCode.UNIMPLEMENTED", error
            else:
                raise AssertionError("was not refused")


def refused(text: str, client: Any, *arguments: Any, **options: Any) -> None:
    try:
        client.infer(*arguments, **options)
    except InferenceServerException as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"was not refused: {text}")


def check_callback_and_cancellation(target: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(target.grpc) as client:
        for number in range(32):
            client.async_infer(
                "digits_image",
                files_input(target.files),
                lambda result, error: answers.put((result, error)),
                request_id=str(number),
            )
        ids = set()
        for _ in range(32):
            result, error = answers.get(timeout=30)
            assert error is None, error
            ids.add(result.get_response().id)
        assert ids == {str(number) for number in range(32)}
        many = files_input(target.files * 20)
        client.async_infer("digits_image", many, lambda result, error: answers.put((result, error))).cancel()
        _, error = answers.get(timeout=30)
        assert "Locally cancelled" in str(error), error


def check_streaming(target: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(target.grpc) as client:
        pixels = seen(client, target.files)
        client.start_stream(lambda result, error: answers.put((result, error)))
        for digit in range(10):
            client.async_stream_infer("digits", pixels_input(pixels[digit : digit + 1]), request_id=str(digit))
        client.async_stream_infer("digits", pixels_input(pixels[:1]), model_version="99")
        client.async_stream_infer(
            "digits", pixels_input(pixels[:1]), request_id="last", enable_empty_final_response=True
        )
        for digit in range(10):
            result, error = answers.get(timeout=30)
            assert error is None, error
            assert result.get_response().id == str(digit)
            assert result.as_numpy("probabilities").argmax() == digit
        result, error = answers.get(timeout=30)
        assert "version '99' is not found" in str(error), error
        result, error = answers.get(timeout=30)
        assert error is None and result.get_response().parameters["triton_final_response"].bool_param
        client.stop_stream()


def check_asyncio(target: Any) -> None:
    async def run() -> None:
        async with triton_aio.InferenceServerClient(target.grpc) as client:
            assert await client.is_server_ready() and await client.is_model_ready("digits")
            answers = await asyncio.gather(
                *(client.infer("digits_image", files_input(target.files)) for _ in range(16))
            )
            for answer in answers:
                assert answer.as_numpy("probabilities").argmax(1).tolist() == list(range(10))

            async def requests() -> Any:
                for _ in range(3):
                    yield {"model_name": "digits_image", "inputs": files_input(target.files)}

            count = 0
            async for result, error in client.stream_infer(requests()):
                assert error is None, error
                assert result.as_numpy("digit_score").shape == (10,)
                count += 1
            assert count == 3

    asyncio.run(run())
