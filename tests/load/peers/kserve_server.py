"""KServe's Python SDK: a custom model. Ports and the rest are KServe's own flags.

python kserve_server.py models/digits/1/model.onnx --grpc_port 8081 --http_port 8080
"""

from __future__ import annotations

import argparse

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server


class Digits(Model):
    """The model."""

    def __init__(self, path: str):
        """Load it on one thread."""
        super().__init__("digits")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.ready = True

    async def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """Run it."""
        values = self._session.run(["probabilities", "digit_score"], {"image": payload.inputs[0].as_numpy()})
        outputs = []
        for name, value in zip(("probabilities", "digit_score"), values, strict=True):
            output = InferOutput(name, [*value.shape], "FP32")
            output.set_data_from_numpy(value)
            outputs.append(output)
        return InferResponse(payload.id, self.name, outputs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("model")
    ModelServer().start([Digits(parser.parse_args().model)])
