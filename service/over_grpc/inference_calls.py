"""The Open Inference Protocol over gRPC: calls, deadlines and streams; nothing else happens here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from protos import grpc_service_pb2 as pb
from protos import grpc_service_pb2_grpc
from service.errors import CallError, NotImplementedYet
from service.open_inference.inference import Inference
from service.open_inference.outputs import MAX_ID_CHARACTERS
from service.over_grpc.calls import Streams, deadline_of, received_bytes

if TYPE_CHECKING:
    # Generic in the stubs only.
    Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


class InferenceCalls(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """The calls of `protos/grpc_service.proto`, whose comments say what they mean."""

    def __init__(self, inference: Inference, *, stream_window: int, streams: Streams):
        """Serve over gRPC.

        Args:
            inference: Makes the answers.
            stream_window: Requests of one stream worked on at the same time.
            streams: Answers them.
        """
        self._inference = inference
        self._stream_window = stream_window
        self._streams = streams

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._inference.server_ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._inference.model_ready(request.name, request.version))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        return self._inference.server_metadata()

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        return self._inference.model_metadata(request.name, request.version)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        return await self._inference.infer(request, deadline_of(context))

    async def ModelStreamInfer(  # type: ignore[override]  # gRPC also takes a coroutine that writes
        self, requests: AsyncIterator[pb.ModelInferRequest | CallError], context: Context
    ) -> None:
        deadline = deadline_of(context)
        # Triton's word for: end the stream with a status instead of putting the error into a message.
        ends_on_error = ("triton_grpc_error", "true") in (context.invocation_metadata() or ())

        async def answer(request: pb.ModelInferRequest | CallError) -> pb.ModelStreamInferResponse:
            try:
                if isinstance(request, CallError):
                    raise request
                response = await self._inference.infer(request, deadline)
                answered = pb.ModelStreamInferResponse(infer_response=response)
            except CallError as error:
                if ends_on_error:
                    raise
                answered = pb.ModelStreamInferResponse(error_message=str(error))
                if isinstance(request, CallError):
                    return answered
                # Which request failed.
                answered.infer_response.id = request.id[:MAX_ID_CHARACTERS]
            if request.parameters["triton_enable_empty_final_response"].bool_param:
                answered.infer_response.parameters["triton_final_response"].bool_param = True
            return answered

        async def answer_one(requests: Sequence[pb.ModelInferRequest | CallError]) -> list[pb.ModelStreamInferResponse]:
            return [await answer(requests[0])]

        await self._streams.answer_in_order(
            requests,
            answer_one,
            context,
            # Each may be a batch.
            is_small=lambda _: False,
            size=lambda request: received_bytes(request) + self._inference.much_to_say(request),
            window=self._stream_window,
        )

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        return self._inference.model_config(request.name, request.version)

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        return await self._inference.model_statistics(request.name, request.version)

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        return await self._inference.repository_index(request.ready)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        return await self._inference.load(request)

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        return await self._inference.unload(request)

    async def _no_shared_memory(self, request: object, context: Context) -> NoReturn:
        raise NotImplementedYet("shared memory is not available; send the tensors in the request")

    async def _no_tracing(self, request: object, context: Context) -> NoReturn:
        raise NotImplementedYet("traces are not available; times are in the metrics")

    async def _no_log_settings(self, request: object, context: Context) -> NoReturn:
        raise NotImplementedYet("the log cannot be set by a call")

    SystemSharedMemoryStatus = SystemSharedMemoryRegister = SystemSharedMemoryUnregister = _no_shared_memory
    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = _no_shared_memory
    TraceSetting = _no_tracing
    LogSettings = _no_log_settings
