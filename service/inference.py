"""The Open Inference Protocol: what each of its calls answers, whatever they travel in.

Messages in, messages out; gRPC and REST are two spellings of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from protos import grpc_service_pb2 as pb
from service import model_config, tensors
from service.batching import Images
from service.classifier import Classifier, Inferred
from service.errors import InvalidRequest, NotFound, NotImplementedYet, NotReady
from service.model_config import DOORS, FILES_DOOR, Door

EXTENSIONS = ("classification", "parameters", "schedule_policy")
# An output, and how many classes are wanted of it; 0 for its numbers.
Wanted = Sequence[tuple[str, int]]
DEFAULT_OUTPUTS: Wanted = ((model_config.PROBABILITIES, 0), (model_config.DIGIT_SCORE, 0))


class Inference:
    """Answers the calls of `protos/grpc_service.proto`, whose comments say what they mean."""

    def __init__(self, classifier: Classifier, *, server_version: str):
        """Serve a classifier.

        Args:
            classifier: Does the work.
            server_version: What `server_metadata` tells.
        """
        self._classifier = classifier
        self._server_version = server_version

    def server_ready(self) -> bool:
        """Whether a model is loaded."""
        return self.model_ready("digits", "")

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a version of a model is loaded; false also for one that does not exist."""
        try:
            self._door(name, version)
        except (NotFound, NotReady):
            return False
        return True

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """What the server is."""
        return pb.ServerMetadataResponse(name="digitserve", version=self._server_version, extensions=EXTENSIONS)

    def model_metadata(self, name: str, version: str) -> pb.ModelMetadataResponse:
        """The tensors of a model.

        Raises:
            NotFound: There is no such model, or no such version.
            NotReady: None is loaded.
        """
        return model_config.metadata(self._door(name, version), [self._classifier.model.version])

    async def infer(self, request: pb.ModelInferRequest, deadline: float | None) -> pb.ModelInferResponse:
        """One inference.

        Args:
            request: From a caller; nothing in it is trusted.
            deadline: `time.monotonic()` after which the answer is useless.

        Raises:
            CallError: It cannot be answered; the text says why.
        """
        door = self._door(request.model_name, request.model_version)
        wanted = _wanted(request, door) if request.outputs else DEFAULT_OUTPUTS
        priority = 0
        if request.parameters:
            priority = tensors.whole_number(request.parameters, "priority")
            timeout_us = tensors.whole_number(request.parameters, "timeout")
            if timeout_us > 0:
                timeout = time.monotonic() + timeout_us / 1e6
                deadline = timeout if deadline is None else min(timeout, deadline)
        if door is FILES_DOOR:
            images = await self._classifier.read(tensors.read_files(request), deadline)
        else:
            images = tensors.read_pixels(request)
        inferred = await self._classifier.infer(images, deadline, priority=priority)
        return _response(request, wanted, images, inferred)

    def _door(self, name: str, version: str) -> Door:
        """The model of this name, if it is there in this version ("" for any)."""
        door = DOORS.get(name)
        if door is None:
            raise NotFound(
                f"Request for unknown model: '{name[:40]}' is not found; this server has {' and '.join(DOORS)}"
            )
        loaded = self._classifier.model.version
        if version and version != loaded:
            raise NotFound(
                f"Request for unknown model: '{name}' version '{version[:40]}' is not found; loaded is {loaded}"
            )
        return door


def _wanted(request: pb.ModelInferRequest, door: Door) -> Wanted:
    """The outputs that a request names."""
    wanted: dict[str, int] = {}
    for output in request.outputs:
        name = output.name
        if name not in door.outputs:
            raise InvalidRequest(
                f"unexpected inference output '{name[:40]}' for model '{door.name}'; it has {', '.join(door.outputs)}"
            )
        if name in wanted:
            raise InvalidRequest(f"output '{name}' is requested twice")
        if "shared_memory_region" in output.parameters:
            raise NotImplementedYet(f"shared memory is not available; output '{name}' comes with the answer")
        wanted[name] = tensors.whole_number(output.parameters, "classification")
        if wanted[name] and name != model_config.PROBABILITIES:
            raise InvalidRequest(f"classification is for the output 'probabilities', not for '{name}'")
        if wanted[name] < 0:
            raise InvalidRequest(f"the parameter 'classification' is {wanted[name]}; expected 1 to 10 classes")
    return tuple(wanted.items())


def _response(
    request: pb.ModelInferRequest, wanted: Wanted, images: Images, inferred: Inferred
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=inferred.model_version, id=request.id)
    outputs, raw = response.outputs, response.raw_output_contents
    for name, count in wanted:
        if count:
            count = min(count, 10)
            outputs.add(name=name, datatype="BYTES", shape=(len(images), count))
            raw.append(tensors.join_bytes(tensors.classes(inferred.outcome.probabilities, count)))
        elif name == model_config.PROBABILITIES:
            outputs.add(name=name, datatype="FP32", shape=(len(images), 10))
            raw.append(inferred.outcome.probabilities.tobytes())
        elif name == model_config.DIGIT_SCORE:
            outputs.add(name=name, datatype="FP32", shape=(len(images),))
            raw.append(inferred.outcome.digit_scores.tobytes())
        else:
            outputs.add(name=name, datatype="UINT8", shape=(len(images), 28, 28))
            raw.append(images.tobytes())
    return response
