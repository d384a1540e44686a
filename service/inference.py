"""The Open Inference Protocol: what each of its calls answers, whatever they travel in.

Messages in, messages out; gRPC and REST are two spellings of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from protos import grpc_service_pb2 as pb
from service import model_config, tensors
from service.classifier import Classifier, Inferred
from service.errors import CallError, DeadlinePassed, InvalidRequest, NotFound, NotImplementedYet, NotReady
from service.judging import Images
from service.loading import Loader
from service.model_config import DOORS, FILES_DOOR, Door
from service.versions import Versions

EXTENSIONS = (
    "classification",
    "parameters",
    "schedule_policy",
    "model_configuration",
    "statistics",
    "binary_tensor_data",
)
# An output, and how many classes are wanted of it; 0 for its numbers.
Wanted = Sequence[tuple[str, int]]
DEFAULT_OUTPUTS: Wanted = ((model_config.PROBABILITIES, 0), (model_config.DIGIT_SCORE, 0))


class Inference:
    """Answers the calls of `protos/grpc_service.proto`, whose comments say what they mean."""

    def __init__(
        self,
        classifier: Classifier,
        versions: Versions,
        loader: Loader,
        *,
        allows_control: bool,
        is_ready: Callable[[], bool],
        server_version: str,
        max_batch_images: int,
        max_run_images: int,
    ):
        """Serve a classifier.

        Args:
            classifier: Does the work.
            versions: Of its model.
            loader: Loads and unloads them.
            allows_control: Whether callers may have it do that.
            is_ready: Whether the server is well, be a model loaded or not.
            server_version: What `server_metadata` tells.
            max_batch_images: Most images in one request.
            max_run_images: Most images in one run of the model.
        """
        self._classifier = classifier
        self._versions = versions
        self._loader = loader
        self._allows_control = allows_control
        self._is_ready = is_ready
        self._server_version = server_version
        self._max_batch_images = max_batch_images
        self._max_run_images = max_run_images

    def server_ready(self) -> bool:
        """Whether the server has started and is not going away."""
        return self._is_ready()

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a version of a model is loaded; false also for one that does not exist."""
        try:
            self.check_model(name, version)
        except (NotFound, NotReady):
            return False
        return True

    def check_model(self, name: str, version: str) -> None:
        """Make sure that a version of a model is loaded.

        Raises:
            NotFound: There is no such model, or no such version.
            NotReady: None is loaded.
        """
        _door(name)
        self._versions.find(version)

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """What the server is."""
        extensions = (*EXTENSIONS, "model_repository") if self._allows_control else EXTENSIONS
        return pb.ServerMetadataResponse(name="digitserve", version=self._server_version, extensions=extensions)

    def model_metadata(self, name: str, version: str) -> pb.ModelMetadataResponse:
        """The tensors of a model.

        Raises:
            NotFound: There is no such model, or no such version.
            NotReady: None is loaded.
        """
        door, _ = _door(name), self._versions.find(version)
        return model_config.metadata(door, [each.model.version for each in self._versions.loaded()])

    def model_config(self, name: str, version: str) -> pb.ModelConfigResponse:
        """How a model is run.

        Raises:
            NotFound: There is no such model, or no such version.
            NotReady: None is loaded.
        """
        door, found = _door(name), self._versions.find(version)
        config = model_config.config(
            door,
            found.model,
            policy=self._loader.policy,
            max_batch_images=self._max_batch_images,
            max_run_images=self._max_run_images,
        )
        return pb.ModelConfigResponse(config=config)

    def model_statistics(self, name: str, version: str) -> pb.ModelStatisticsResponse:
        """What the versions of a model did; "" stands for every model and every version.

        Raises:
            NotFound: There is no such model, or no such version.
            NotReady: None is loaded.
        """
        doors = [_door(name)] if name else DOORS.values()
        versions = [self._versions.find(version)] if version else self._versions.loaded()
        return pb.ModelStatisticsResponse(
            model_stats=[model_config.statistics(door, version) for door in doors for version in versions]
        )

    async def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Load what is new or changed in the models' folder.

        Raises:
            NotImplementedYet: Calls may not do that.
            NotFound: There is no such model.
            InvalidRequest: It is no model of its own, the request brings a model, or what is there cannot be used.
        """
        self._check_control(request)
        if request.parameters:
            raise InvalidRequest("a model is loaded as it is in the folder; the request must not have parameters")
        await self._loader.reload()
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Answer with no version of a model any more.

        Raises:
            NotImplementedYet: Calls may not do that.
            NotFound: There is no such model.
            InvalidRequest: It is no model of its own.
        """
        self._check_control(request)
        await self._loader.unload()
        return pb.RepositoryModelUnloadResponse()

    def _check_control(self, request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> None:
        if not self._allows_control:
            raise NotImplementedYet(
                "models can be loaded and unloaded by a call only if the server runs with --model-control explicit"
            )
        # KServe's clients send the name in the field that is Triton's name of a repository.
        if _door(request.model_name or request.repository_name) is FILES_DOOR:
            raise InvalidRequest("'digits_image' reads image files for the model 'digits'; load or unload that")

    def repository_index(self, only_ready: bool) -> pb.RepositoryIndexResponse:
        """Every version of every model, or every one that is ready, with its state."""
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=name, version=each.version, state=each.state, reason=each.reason
                )
                for name in DOORS
                for each in self._loader.states()
                if each.state == "READY" or not only_ready
            ]
        )

    async def infer(self, request: pb.ModelInferRequest, deadline: float | None) -> pb.ModelInferResponse:
        """One inference.

        Args:
            request: From a caller; nothing in it is trusted.
            deadline: `time.monotonic()` after which the answer is useless.

        Raises:
            CallError: It cannot be answered; the text says why.
        """
        door = _door(request.model_name)
        found = self._versions.find(request.model_version)
        priority, timeout_us = 0, 0
        try:
            wanted = _wanted(request, door) if request.outputs else DEFAULT_OUTPUTS
            if request.parameters:
                priority = tensors.whole_number(request.parameters, "priority")
                timeout_us = tensors.whole_number(request.parameters, "timeout")
            given = self._read(request, door)
        except CallError:
            # What comes after this, the classifier counts.
            model_config.requests(door, found).fail.add(0.0)
            raise
        try:
            # Not as a deadline for the queue: behind callers of a higher priority it would be noticed late.
            async with asyncio.timeout(timeout_us / 1e6 if timeout_us > 0 else None):
                inferred = await self._run(given, request.model_version, deadline, priority)
        except TimeoutError:
            raise DeadlinePassed(f"the deadline passed: the request gives itself {timeout_us} us") from None
        return _response(request, wanted, inferred)

    def _read(self, request: pb.ModelInferRequest, door: Door) -> Images | list[bytes]:
        """The pixels or the files of a request."""
        read = tensors.read_files if door is FILES_DOOR else tensors.read_pixels
        return read(request, self._max_batch_images)

    async def _run(self, given: Images | list[bytes], version: str, deadline: float | None, priority: int) -> Inferred:
        if isinstance(given, list):
            _, _, inferred = await self._classifier.infer_files(
                given, deadline, version=version, priority=priority, needs_all=True
            )
            # None only where some images may be unreadable.
            return cast(Inferred, inferred)
        return await self._classifier.infer(given, deadline, version=version, priority=priority)


def _door(name: str) -> Door:
    """The model of this name."""
    try:
        return DOORS[name]
    except KeyError:
        raise NotFound(
            f"Request for unknown model: '{name[:40]}' is not found; this server has {' and '.join(DOORS)}"
        ) from None


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


def _response(request: pb.ModelInferRequest, wanted: Wanted, inferred: Inferred) -> pb.ModelInferResponse:
    version, images, judged = inferred.version.model.version, inferred.images, inferred.outcome.answers
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
    outputs, raw = response.outputs, response.raw_output_contents
    for name, count in wanted:
        if count:
            count = min(count, 10)
            outputs.add(name=name, datatype="BYTES", shape=(len(images), count))
            raw.append(tensors.join_bytes(tensors.classes(judged.probabilities, count)))
        elif name == model_config.PROBABILITIES:
            outputs.add(name=name, datatype="FP32", shape=(len(images), 10))
            raw.append(judged.probabilities.tobytes())
        elif name == model_config.DIGIT_SCORE:
            outputs.add(name=name, datatype="FP32", shape=(len(images),))
            raw.append(judged.digit_scores.tobytes())
        else:
            outputs.add(name=name, datatype="UINT8", shape=(len(images), 28, 28))
            raw.append(images.tobytes())
    return response
