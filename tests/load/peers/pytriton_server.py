"""PyTriton: Triton's front end before a Python function, with dynamic batching.

python pytriton_server.py models/digits/1/model.onnx GRPC_PORT HTTP_PORT METRICS_PORT
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def main(path: str, grpc_port: str, http_port: str, metrics_port: str) -> None:
    """Serve until a signal."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    @batch
    def infer(image: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        probabilities, score = session.run(["probabilities", "digit_score"], {"image": image})
        return {"probabilities": probabilities, "digit_score": score[:, None]}

    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=int(grpc_port),
        http_address="127.0.0.1",
        http_port=int(http_port),
        metrics_port=int(metrics_port),
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="digits",
            infer_func=infer,
            inputs=[Tensor(name="image", dtype=np.uint8, shape=(1, 28, 28))],
            outputs=[
                Tensor(name="probabilities", dtype=np.float32, shape=(10,)),
                Tensor(name="digit_score", dtype=np.float32, shape=(1,)),
            ],
            config=ModelConfig(max_batch_size=32, batcher=DynamicBatcher()),
        )
        triton.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
