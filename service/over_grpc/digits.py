"""digits.v1 messages <-> classifier; nothing else happens here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import status_pb2

from protos import digits_pb2, digits_pb2_grpc
from service.classifier import Answer, Classifier, Format, Prediction
from service.errors import CallError, InvalidImage, InvalidRequest, without_frames
from service.explanation import explain_messages
from service.explanation.explaining import Explainer
from service.model.versions import Versions
from service.over_grpc.calls import Streams, deadline_of

if TYPE_CHECKING:
    # Generic in the stubs only.
    Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = digits_pb2.DESCRIPTOR.services_by_name["DigitClassifier"].full_name

# Images of a stream that are answered together have at most so many bytes each: raw pixels, and files like them.
SMALL_BYTES = 2048
# Of an image in a stream; it comes back with the answer, which stays here until the caller takes it.
MAX_ID_CHARACTERS = 1024

_FORMATS = {
    digits_pb2.IMAGE_FORMAT_UNSPECIFIED: Format.ENCODED,
    digits_pb2.IMAGE_FORMAT_ENCODED: Format.ENCODED,
    digits_pb2.IMAGE_FORMAT_RAW_28X28: Format.RAW_28X28,
}


class DigitClassifier(digits_pb2_grpc.DigitClassifierServicer):
    """The calls of `protos/digits.proto`, whose comments say what they mean."""

    def __init__(
        self,
        classifier: Classifier,
        explainer: Explainer,
        versions: Versions,
        *,
        about_server: digits_pb2.GetModelResponse,
        stream_window_images: int,
        streams: Streams,
    ):
        """Serve a classifier.

        Args:
            classifier: Does the work.
            explainer: Tells how it came to an answer.
            versions: Of its model.
            about_server: What `GetModel` tells besides of the server: its limits and transport.
            stream_window_images: Images of one stream worked on at the same time.
            streams: Answers them.
        """
        self._classifier = classifier
        self._explainer = explainer
        self._versions = versions
        self._about_server = about_server
        self._stream_window_images = stream_window_images
        self._streams = streams

    async def Classify(self, request: digits_pb2.ClassifyRequest, context: Context) -> digits_pb2.ClassifyResponse:
        answer = await self._classifier.classify([request.image], _format(request.format), deadline_of(context))
        result = answer.results[0]
        if isinstance(result, InvalidImage):
            raise result
        response = digits_pb2.ClassifyResponse(model_version=answer.model_version)
        _tell_prediction(response.prediction, result)
        _tell_timing(response.timing, answer)
        return response

    async def ClassifyBatch(
        self, request: digits_pb2.ClassifyBatchRequest, context: Context
    ) -> digits_pb2.ClassifyBatchResponse:
        answer = await self._classifier.classify(request.images, _format(request.format), deadline_of(context))
        response = digits_pb2.ClassifyBatchResponse(model_version=answer.model_version)
        for result in answer.results:
            item = response.results.add()
            if isinstance(result, InvalidImage):
                item.error.CopyFrom(_error(result))
            else:
                _tell_prediction(item.prediction, result)
        _tell_timing(response.timing, answer)
        return response

    async def ClassifyStream(  # type: ignore[override]  # gRPC also takes a coroutine that writes
        self, requests: AsyncIterator[digits_pb2.ClassifyStreamRequest | CallError], context: Context
    ) -> None:
        """Answer in order, while up to a window of images is worked on."""
        deadline = deadline_of(context)
        await self._streams.answer_in_order(
            requests,
            lambda requests: self._answer(requests, deadline),
            context,
            is_small=lambda request: not isinstance(request, CallError) and len(request.image) <= SMALL_BYTES,
            window=self._stream_window_images,
        )

    async def _answer(
        self, requests: Sequence[digits_pb2.ClassifyStreamRequest | CallError], deadline: float | None
    ) -> list[digits_pb2.ClassifyStreamResponse]:
        """The answers to some images, those of one format together."""
        responses = [digits_pb2.ClassifyStreamResponse() for _ in requests]
        formats: dict[digits_pb2.ImageFormat.ValueType, list[int]] = {}
        for n, request in enumerate(requests):
            if isinstance(request, CallError):
                responses[n].error.CopyFrom(_error(request))
                continue
            responses[n].id = request.id[:MAX_ID_CHARACTERS]
            if len(request.id) > MAX_ID_CHARACTERS:
                text = f"the id of the image has {len(request.id)} characters, the limit is {MAX_ID_CHARACTERS}"
                responses[n].error.CopyFrom(_error(InvalidRequest(text)))
            else:
                formats.setdefault(request.format, []).append(n)
        for format, places in formats.items():
            images = [requests[n].image for n in places]  # type: ignore[union-attr]  # only those that could be read
            results: Sequence[Prediction | CallError]
            try:
                results = (await self._classifier.classify(images, _format(format), deadline)).results
            except CallError as error:
                results = [without_frames(error)] * len(places)
            for n, result in zip(places, results, strict=True):
                if isinstance(result, CallError):
                    responses[n].error.CopyFrom(_error(result))
                else:
                    _tell_prediction(responses[n].prediction, result)
        return responses

    async def Explain(self, request: digits_pb2.ExplainRequest, context: Context) -> digits_pb2.ExplainResponse:
        explanation = await self._explainer.explain(request.image, _format(request.format), deadline_of(context))
        # Two hundred thousand numbers: in a thread, other callers go on.
        return await asyncio.to_thread(
            explain_messages.response,
            explanation,
            _prediction(explanation.prediction),
            with_weights=not request.without_weights,
        )

    async def GetModel(self, request: digits_pb2.GetModelRequest, context: Context) -> digits_pb2.GetModelResponse:
        model = self._versions.find().model
        response = digits_pb2.GetModelResponse(
            name=model.name,
            version=model.version,
            network=model.network,
            accuracy=model.accuracy,
            sha256=model.sha256,
            providers_asked=model.providers_asked,
            providers_got=model.providers_got,
            trained_on=model.trained_on,
            reject_threshold=model.reject_threshold,
            tested_on=model.tested_on,
            calibration_error=model.calibration_error,
            licence=model.licence,
            commit=model.commit,
        )
        response.MergeFrom(self._about_server)
        return response


def _format(value: digits_pb2.ImageFormat.ValueType) -> Format:
    try:
        return _FORMATS[value]
    except KeyError:
        raise InvalidRequest(
            f"unknown image format {value}; expected IMAGE_FORMAT_ENCODED (1) or IMAGE_FORMAT_RAW_28X28 (2)"
        ) from None


def _tell_prediction(message: digits_pb2.Prediction, prediction: Prediction) -> None:
    # In place: messages that are made one by one and put into one another are copied.
    message.digit = prediction.digit
    message.confidence = prediction.confidence
    message.probabilities.extend(prediction.probabilities)
    message.digit_score = prediction.digit_score
    if prediction.rejection_reason:
        message.rejected = True
        message.rejection_reason = prediction.rejection_reason


def _prediction(prediction: Prediction) -> digits_pb2.Prediction:
    message = digits_pb2.Prediction()
    _tell_prediction(message, prediction)
    return message


def _tell_timing(message: digits_pb2.Timing, answer: Answer) -> None:
    message.decode_seconds = answer.decode_seconds
    message.queue_seconds = answer.queue_seconds
    message.model_seconds = answer.model_seconds


def _error(error: CallError) -> status_pb2.Status:
    return status_pb2.Status(code=grpc.StatusCode[error.status].value[0], message=str(error))
