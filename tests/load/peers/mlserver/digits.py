"""MLServer: a custom runtime, served by `mlserver start` on this folder; other settings are environment variables."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class Digits(MLModel):
    """The model."""

    async def load(self) -> bool:
        """Load it on one thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = await get_model_uri(self.settings)
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run it."""
        image = NumpyCodec.decode_input(payload.inputs[0])
        probabilities, score = self._session.run(["probabilities", "digit_score"], {"image": image})
        outputs = [NumpyCodec.encode_output("probabilities", probabilities)]
        outputs.append(NumpyCodec.encode_output("digit_score", score))
        return InferenceResponse(model_name=self.name, outputs=outputs)
