"""LitServe: an API that takes the pixels of an image as JSON, {"image": [784 numbers]}, and runs them in batches.

python litserve_server.py models/digits/1/model.onnx 8000
"""

from __future__ import annotations

import sys

import litserve
import numpy as np
import numpy.typing as npt
import onnxruntime


class Digits(litserve.LitAPI):
    """The model."""

    def __init__(self, path: str):
        """Run what has come within 2 ms together, at most 32."""
        super().__init__(max_batch_size=32, batch_timeout=0.002)
        self._path = path

    def setup(self, device: str) -> None:
        """Load it on one thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, list[int]]) -> npt.NDArray[np.uint8]:
        """The image of a request, uint8 [1, 28, 28]."""
        return np.array(request["image"], np.uint8).reshape(1, 28, 28)

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities, float32 [N, 10], of the images, uint8 [N, 1, 28, 28]."""
        return self._session.run(["probabilities"], {"image": images})[0]

    def encode_response(self, probabilities: npt.NDArray[np.float32]) -> dict[str, list[float]]:
        """The answer to a request."""
        return {"probabilities": probabilities.tolist()}


if __name__ == "__main__":
    path, port = sys.argv[1:]
    server = litserve.LitServer(Digits(path), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")
