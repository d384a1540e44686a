"""tritonclient over HTTP: every getter, JSON and binary tensors, compressed bodies, every kind of refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def tensor(values: Any, datatype: str, binary: bool = True, name: str = "image") -> list[Any]:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return [given]


def files(target: Any) -> list[Any]:
    return tensor(np.array(target.files, dtype=np.object_), "BYTES")


def seen(client: Any, target: Any) -> Any:
    """The pixels of the pictures, uint8 (10, 1, 28, 28)."""
    outputs = [triton.InferRequestedOutput("seen", binary_data=True)]
    return client.infer("digits_image", files(target), outputs=outputs).as_numpy("seen").reshape(-1, 1, 28, 28)


def check_every_getter(target: Any) -> None:
    with triton.InferenceServerClient(target.http) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("digits") and client.is_model_ready("digits_image", "1")
        assert not client.is_model_ready("digits", "99") and not client.is_model_ready("nothing")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        assert client.get_model_metadata("digits", "1")["inputs"][0]["shape"] == [-1, 1, 28, 28]
        config = client.get_model_config("digits")
        assert config["max_batch_size"] == 1024 and config["input"][0]["dims"] == [1, 28, 28]
        assert config["input"][0]["data_type"] == "TYPE_UINT8" and "dynamic_batching" in config
        assert len(client.get_inference_statistics()["model_stats"]) == 3
        statistics = client.get_inference_statistics("digits_image", "1")["model_stats"][0]
        assert isinstance(statistics["inference_stats"]["success"]["count"], int)
        assert {(each["name"], each["state"]) for each in client.get_model_repository_index()} == {
            ("digits", "READY"),
            ("digits_image", "READY"),
            ("digits_explain", "READY"),
        }


def check_layers(target: Any) -> None:
    with triton.InferenceServerClient(target.http) as client:
        told = client.get_model_metadata("digits_explain")["outputs"]
        answer = client.infer("digits_explain", files(target))
        for output in told:
            value = answer.as_numpy(output["name"])
            assert output["name"] == "seen" or [-1, *value.shape[1:]] == output["shape"]
        assert (answer.as_numpy("fc2")[:, :10].argmax(1) == np.arange(10)).all()


def check_json_and_binary_alike(target: Any) -> None:
    with triton.InferenceServerClient(target.http) as client:
        answer = client.infer("digits_image", files(target), request_id="ten")
        response = answer.get_response()
        assert (response["id"], response["model_version"]) == ("ten", "1")
        expected = answer.as_numpy("probabilities")
        assert expected.argmax(1).tolist() == list(range(10))
        pixels = seen(client, target)
        for values, datatype in ((pixels, "UINT8"), (pixels.astype(np.float32), "FP32")):
            for binary in (True, False):
                outputs = [
                    triton.InferRequestedOutput("digit_score", binary_data=not binary),
                    triton.InferRequestedOutput("probabilities", binary_data=binary),
                ]
                answer = client.infer("digits", tensor(values, datatype, binary), outputs=outputs, model_version="1")
                assert [each["name"] for each in answer.get_response()["outputs"]] == ["digit_score", "probabilities"]
                assert np.allclose(answer.as_numpy("probabilities"), expected, atol=1e-6)
                assert answer.as_numpy("digit_score").shape == (10,)


def check_classes(target: Any) -> None:
    with triton.InferenceServerClient(target.http) as client:
        for binary in (True, False):
            outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
            classes = client.infer("digits_image", files(target), outputs=outputs).as_numpy("probabilities")
            assert classes.shape == (10, 2)
            labels = [(each if isinstance(each, str) else each.decode()).split(":")[2] for each in classes[:, 0]]
            assert labels == list("0123456789")


def check_compressed_bodies(target: Any) -> None:
    with triton.InferenceServerClient(target.http) as client:
        for algorithm in ("gzip", "deflate"):
            answer = client.infer(
                "digits_image",
                files(target),
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            assert answer.as_numpy("probabilities").argmax(1).tolist() == list(range(10))


def check_async(target: Any) -> None:
    with triton.InferenceServerClient(target.http, concurrency=4) as client:
        waiting = [client.async_infer("digits_image", files(target)) for _ in range(8)]
        for answer in waiting:
            assert answer.get_result().as_numpy("probabilities").argmax(1).tolist() == list(range(10))


def check_what_is_refused(target: Any) -> None:
    with triton.InferenceServerClient(target.http) as client:
        pixels = np.zeros((1, 1, 28, 28), np.uint8)
        refused("404", "Request for unknown model: 'x' is not found", client, "x", tensor(pixels, "UINT8"))
        refused("404", "version '99' is not found", client, "digits", tensor(pixels, "UINT8"), model_version="99")
        refused("400", "got [28,28]", client, "digits", tensor(pixels[0, 0], "UINT8"))
        refused("400", "datatype 'INT8'", client, "digits", tensor(pixels.astype(np.int8), "INT8", False))
        refused("400", "the request has 'x'", client, "digits", tensor(pixels, "UINT8", name="x"))
        many = np.zeros((1025, 1, 28, 28), np.uint8)
        refused("400", "the limit is 1024 (--max-batch-images)", client, "digits", tensor(many, "UINT8"))
        refused("504", "the deadline passed", client, "digits_image", files(target), timeout=1)


def refused(status: str, text: str, client: Any, *arguments: Any, **options: Any) -> None:
    try:
        client.infer(*arguments, **options)
    except InferenceServerException as error:
        assert text in error.message() and error.status() == status, error
    else:
        raise AssertionError(f"was not refused: {text}")
