"""The Open Inference Protocol: what each of its calls answers, whatever they travel in.

Messages in, messages out; gRPC and REST are two spellings of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import cast

from protos import grpc_service_pb2 as pb
from service.classifier import Classifier, Inferred
from service.errors import CallError, DeadlinePassed, InvalidRequest, NotFound, NotImplementedYet, NotReady
from service.explanation.explaining import Explainer, Field
from service.model.versions import Versions
from service.open_inference import doors, model_config, outputs, tensors
from service.open_inference.control import Control
from service.open_inference.doors import FILES_DOOR, LAYERS_DOOR, ORDINARY_OUTPUTS, PIXELS_DOOR, Door, Doors
from service.open_inference.outputs import Wanted
from service.runs.judging import Images

EXTENSIONS = (
    "classification",
    "parameters",
    "schedule_policy",
    "model_configuration",
    "statistics",
    "binary_tensor_data",
)
# gRPC's clients take messages of 4 MB unless told otherwise.
MAX_EXPLAINED_IMAGES, EXPLAINED_BYTES = 16, 180_000


class Inference:
    """Answers the calls of `protos/grpc_service.proto`, whose comments say what they mean."""

    def __init__(
        self,
        classifier: Classifier,
        explainer: Explainer,
        versions: Versions,
        control: Control,
        *,
        policy: str,
        model_name: str,
        allows_control: bool,
        is_ready: Callable[[], bool],
        server_version: str,
        max_batch_images: int,
        max_run_images: int,
    ):
        """Serve a classifier.

        Args:
            classifier: Does the work.
            explainer: Shows what comes out of the layers.
            versions: Of its model.
            control: Loads and unloads them, and tells of them.
            policy: Which versions are wanted, as for `repository.select`.
            model_name: What callers call `digits`; `digits_image` is then called NAME_image, and so on.
            allows_control: Whether callers may have it do that.
            is_ready: Whether the server is well, be a model loaded or not.
            server_version: What `server_metadata` tells.
            max_batch_images: Most images in one request.
            max_run_images: Most images in one run of the model.
        """
        self._classifier = classifier
        self._explainer = explainer
        self._versions = versions
        self._doors = Doors(versions, explainer.layers)
        self._control = control
        self._policy = policy
        self._names = {name: name.replace(PIXELS_DOOR.name, model_name, 1) for name in doors.NAMES}
        self._own_names = {theirs: ours for ours, theirs in self._names.items()}
        self._allows_control = allows_control
        self._is_ready = is_ready
        self._server_version = server_version
        self._max_batch_images = max_batch_images
        self._max_run_images = max_run_images

    def model_names(self) -> list[str]:
        """What callers call the models."""
        return [*self._own_names]

    def server_ready(self) -> bool:
        """Whether the server has started and is not going away."""
        return self._is_ready()

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a version of a model is loaded; false also for one that does not exist."""
        try:
            self.check_model(name, version)
        except (NotFound, NotReady, NotImplementedYet):
            return False
        return True

    def check_model(self, name: str, version: str) -> None:
        """Make sure that a version of a model is loaded.

        Raises:
            NotFound: There is no such model, or no such version.
            NotReady: None is loaded.
            NotImplementedYet: It is `digits_explain`, and this version does not show its layers.
        """
        self._door(name, version)
        self._versions.find(version)

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """What the server is."""
        extensions = (*EXTENSIONS, "model_repository") if self._allows_control else EXTENSIONS
        return pb.ServerMetadataResponse(name="digitserve", version=self._server_version, extensions=extensions)

    def model_metadata(self, name: str, version: str) -> pb.ModelMetadataResponse:
        """The tensors of a model.

        Raises:
            NotFound, NotReady, NotImplementedYet: As for `check_model`.
        """
        door, _ = self._door(name, version), self._versions.find(version)
        loaded = [each.model.version for each in self._versions.loaded()]
        return model_config.metadata(name, door, [each for each in loaded if not self._doors.why_not(door.name, each)])

    def model_config(self, name: str, version: str) -> pb.ModelConfigResponse:
        """How a model is run.

        Raises:
            NotFound, NotReady, NotImplementedYet: As for `check_model`.
        """
        door, found = self._door(name, version), self._versions.find(version)
        config = model_config.config(
            name,
            door,
            found.model,
            policy=self._policy,
            max_batch_images=self._max_batch_images,
            max_run_images=self._max_run_images,
        )
        return pb.ModelConfigResponse(config=config)

    async def model_statistics(self, name: str, version: str) -> pb.ModelStatisticsResponse:
        """What the versions of a model did; "" stands for every model and every version.

        Raises:
            NotFound, NotReady, NotImplementedYet: As for `check_model`.
        """
        if name:
            self.check_model(name, version)
        elif version:
            self._versions.find(version)
        wanted = [
            each
            for each in await self._control.statistics()
            if (not name or each.name == self._own_names[name]) and version in ("", each.version)
        ]
        for each in wanted:
            each.name = self._names[each.name]
        return pb.ModelStatisticsResponse(model_stats=wanted)

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
        await self._control.reload()
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Answer with no version of a model any more.

        Raises:
            NotImplementedYet: Calls may not do that.
            NotFound: There is no such model.
            InvalidRequest: It is no model of its own.
        """
        self._check_control(request)
        await self._control.unload()
        return pb.RepositoryModelUnloadResponse()

    def _check_control(self, request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> None:
        if not self._allows_control:
            raise NotImplementedYet(
                "models can be loaded and unloaded by a call only if the server runs with --model-control explicit"
            )
        # KServe's clients send the name in the field that is Triton's name of a repository.
        name = request.model_name or request.repository_name
        if self._own_names.get(name) in (FILES_DOOR.name, LAYERS_DOOR):
            own = self._names[PIXELS_DOOR.name]
            raise InvalidRequest(f"'{name}' reads image files for the model '{own}'; load or unload that")
        self._door(name)

    async def repository_index(self, only_ready: bool) -> pb.RepositoryIndexResponse:
        """Every version of every model, or every one that is ready, with its state."""
        found = []
        states = await self._control.states()
        for name in doors.NAMES:
            for each in states:
                why_not = self._doors.why_not(name, each.version)
                state, reason = ("UNAVAILABLE", why_not) if why_not else (each.state, each.reason)
                theirs = self._names[name]
                found.append(
                    pb.RepositoryIndexResponse.ModelIndex(name=theirs, version=each.version, state=state, reason=reason)
                )
        return pb.RepositoryIndexResponse(models=[each for each in found if each.state == "READY" or not only_ready])

    async def infer(self, request: pb.ModelInferRequest, deadline: float | None) -> pb.ModelInferResponse:
        """One inference.

        Args:
            request: From a caller; nothing in it is trusted.
            deadline: `time.monotonic()` after which the answer is useless.

        Raises:
            CallError: It cannot be answered; the text says why.
        """
        door = self._door(request.model_name, request.model_version)
        found = self._versions.find(request.model_version)
        priority, timeout_us = 0, 0
        try:
            wanted = outputs.wanted(request, door)
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
            async with asyncio.timeout(timeout_us / 1e6) if timeout_us > 0 else nullcontext():
                if door.name == LAYERS_DOOR and isinstance(given, list):
                    inferred, values = await self._explain(given, request.model_version, wanted, deadline, priority)
                else:
                    inferred, values = await self._run(given, request.model_version, deadline, priority), {}
        except TimeoutError:
            raise DeadlinePassed(f"the deadline passed: the request gives itself {timeout_us} us") from None
        return outputs.response(request, wanted, inferred, values)

    def much_to_say(self, request: pb.ModelInferRequest | CallError) -> int:
        """Bytes that the answer may have beyond those of an ordinary one."""
        explains = isinstance(request, pb.ModelInferRequest) and self._own_names.get(request.model_name) == LAYERS_DOOR
        return MAX_EXPLAINED_IMAGES * EXPLAINED_BYTES if explains else 0

    def _door(self, name: str, version: str = "") -> Door:
        """The model that callers call this."""
        if name not in self._own_names:
            known = ", ".join(self._own_names)
            raise NotFound(f"Request for unknown model: '{name[:40]}' is not found; this server has {known}")
        return self._doors.find(self._own_names[name], version)

    def _read(self, request: pb.ModelInferRequest, door: Door) -> Images | list[bytes]:
        """The pixels or the files of a request."""
        if not door.takes_files:
            return tensors.read_pixels(request, self._max_batch_images)
        files = tensors.read_files(request, self._max_batch_images)
        if door.name == LAYERS_DOOR and len(files) > MAX_EXPLAINED_IMAGES:
            raise InvalidRequest(
                f"the request holds {len(files)} images; '{request.model_name}' takes at most {MAX_EXPLAINED_IMAGES}, "
                "since it has much to say about each"
            )
        return files

    async def _run(self, given: Images | list[bytes], version: str, deadline: float | None, priority: int) -> Inferred:
        if isinstance(given, list):
            _, _, inferred = await self._classifier.infer_files(
                given, deadline, version=version, priority=priority, needs_all=True
            )
            # None only where some images may be unreadable.
            return cast(Inferred, inferred)
        return await self._classifier.infer(given, deadline, version=version, priority=priority)

    async def _explain(
        self, files: list[bytes], version: str, wanted: Wanted, deadline: float | None, priority: int
    ) -> tuple[Inferred, dict[str, Field]]:
        """An answer, and what came out of the layers that are wanted; counted as an inference of its own."""
        began, requests = time.monotonic(), self._versions.find(version).statistics.layers
        names = [name for name, _ in wanted if name not in ORDINARY_OUTPUTS]
        try:
            # The newest may be another one when the files are read.
            inferred = await self._run(files, version, deadline, priority)
            requests, answered = inferred.version.statistics.layers, time.monotonic()
            values = await self._explainer.values(inferred, names) if names else []
        except BaseException:
            requests.fail.add(time.monotonic() - began)
            raise
        ended = time.monotonic()
        requests.answered(
            len(inferred.images), input=answered - began, queue=0.0, infer=ended - answered, total=ended - began
        )
        return inferred, dict(zip(names, values, strict=True))
