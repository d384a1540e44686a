"""A typed client of digits.v1, in a blocking and an asyncio form.

    with Client("127.0.0.1:8001") as client:
        print(client.classify("seven.png").digit)

Images are given as bytes of an image file, as a path, as a PIL image, or as
a numpy array of uint8: of shape (28, 28) it goes to the network as it is, 0
paper to 255 ink; of any other shape it is a picture, (height, width) grey or
(height, width, 3 or 4) RGB or RGBA. Of the project it imports `protos` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Sequence

import grpc

from protos import digits_pb2, digits_pb2_grpc
from service.client.client_channel import PLAINTEXT, Access, channel_options
from service.client.client_explanation import Explanation, explain_request, explanation
from service.client.client_messages import (
    ClassifyError,
    ImageLike,
    ModelInfo,
    Prediction,
    Result,
    batch_request,
    model_info,
    prediction,
    request,
    result,
    results,
    stream_request,
)
from service.client.client_stream import StreamProgress

__all__ = [
    "Access",
    "AsyncClient",
    "ClassifyError",
    "Client",
    "Explanation",
    "ImageLike",
    "ModelInfo",
    "Prediction",
    "Result",
]


class Client:
    """Blocking client; a context manager. Safe to use from several threads."""

    def __init__(
        self,
        address: str = "127.0.0.1:8001",
        *,
        timeout_s: float = 10.0,
        max_attempts: int = 5,
        access: Access = PLAINTEXT,
    ):
        """Connect when first used.

        Args:
            address: host:port, or any gRPC target such as "dns:///digits:8001".
            timeout_s: Deadline of each call, in seconds; of a stream, of each answer.
            max_attempts: Tries of a call that ends with UNAVAILABLE, 1 to 5; 1 never retries.
            access: TLS, certificates and token, for a server that wants them.
        """
        self._channel = access.channel(address, channel_options(timeout_s, max_attempts))
        self._stub = digits_pb2_grpc.DigitClassifierStub(self._channel)
        self._timeout_s = timeout_s
        self._metadata = access.metadata

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def classify(self, image: ImageLike) -> Prediction:
        """Classify one image.

        Raises:
            ClassifyError: The server refused the image or could not be reached.
            OSError: The path cannot be read.
            TypeError: The image is of no accepted type.
        """
        with _call_errors():
            return prediction(self._stub.Classify(request(image), metadata=self._metadata).prediction)

    def classify_batch(self, images: Sequence[ImageLike]) -> list[Result]:
        """Classify images in one call; a bad one yields a ClassifyError in its place.

        Raises:
            ClassifyError: The whole call failed.
            ValueError: 28x28 arrays and pictures are mixed.
        """
        with _call_errors():
            return results(self._stub.ClassifyBatch(batch_request(images), metadata=self._metadata))

    def classify_stream(self, images: Iterable[ImageLike]) -> Generator[Result]:
        """Classify any number of images, in order, many at a time in flight.

        Raises:
            ClassifyError: The stream failed, or an image got no answer for `timeout_s`.
            Exception: What `images` raised, or a bad image in it, once everything before it is answered.
        """
        progress = StreamProgress(self._timeout_s)

        def requests() -> Iterator[digits_pb2.ClassifyStreamRequest]:
            try:
                for image in images:
                    yield progress.sending(stream_request(image))
            except GeneratorExit:
                raise
            # Raised here, in gRPC's thread, it would lose the answers under way, or end the thread and hang the caller.
            except BaseException as error:
                progress.failure = error

        def watch() -> None:
            while not ended.wait(self._timeout_s):
                progress.cancel_if_silent(call)

        call, ended = self._stub.ClassifyStream(requests(), metadata=self._metadata), threading.Event()
        threading.Thread(target=watch, daemon=True).start()
        try:
            with _call_errors(progress):
                for response in call:
                    yield progress.answered(result(response))
                    progress.awaiting = True
        finally:
            ended.set()
            call.cancel()
        if progress.failure:
            raise progress.failure

    def explain(self, image: ImageLike) -> Explanation:
        """How an image becomes an answer, layer by layer.

        Raises:
            ClassifyError, OSError, TypeError: As for `classify`.
        """
        with _call_errors():
            return explanation(self._stub.Explain(explain_request(image), metadata=self._metadata))

    def model(self) -> ModelInfo:
        """Which model answers, and what the server accepts.

        Raises:
            ClassifyError: The server could not be reached.
        """
        with _call_errors():
            return model_info(self._stub.GetModel(digits_pb2.GetModelRequest(), metadata=self._metadata))


class AsyncClient:
    """The same as `Client`, for asyncio."""

    def __init__(
        self,
        address: str = "127.0.0.1:8001",
        *,
        timeout_s: float = 10.0,
        max_attempts: int = 5,
        access: Access = PLAINTEXT,
    ):
        """Connect when first used; the arguments are those of `Client`."""
        self._channel = access.aio_channel(address, channel_options(timeout_s, max_attempts))
        self._stub = digits_pb2_grpc.DigitClassifierStub(self._channel)
        self._timeout_s = timeout_s
        self._metadata = access.metadata

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def classify(self, image: ImageLike) -> Prediction:
        """As `Client.classify`."""
        with _call_errors():
            return prediction((await self._stub.Classify(request(image), metadata=self._metadata)).prediction)

    async def classify_batch(self, images: Sequence[ImageLike]) -> list[Result]:
        """As `Client.classify_batch`."""
        with _call_errors():
            return results(await self._stub.ClassifyBatch(batch_request(images), metadata=self._metadata))

    async def classify_stream(self, images: Iterable[ImageLike] | AsyncIterable[ImageLike]) -> AsyncGenerator[Result]:
        """As `Client.classify_stream`."""
        progress = StreamProgress(self._timeout_s)

        async def requests() -> AsyncIterator[digits_pb2.ClassifyStreamRequest]:
            try:
                async for image in _each(images):
                    yield progress.sending(stream_request(image))
            # Raised here, in gRPC's task, it would lose the answers that are under way.
            except Exception as error:
                progress.failure = error

        async def watch() -> None:
            while True:
                await asyncio.sleep(self._timeout_s)
                progress.cancel_if_silent(call)

        call = self._stub.ClassifyStream(requests(), metadata=self._metadata)
        watching = asyncio.create_task(watch())
        try:
            with _call_errors(progress):
                async for response in call:
                    yield progress.answered(result(response))
                    progress.awaiting = True
        # The stream was cancelled by `watch`: the task it cancels is not the caller's.
        except asyncio.CancelledError:
            if not progress.silent:
                raise
            raise progress.silence() from None
        finally:
            watching.cancel()
            call.cancel()
        if progress.failure:
            raise progress.failure

    async def explain(self, image: ImageLike) -> Explanation:
        """As `Client.explain`."""
        with _call_errors():
            return explanation(await self._stub.Explain(explain_request(image), metadata=self._metadata))

    async def model(self) -> ModelInfo:
        """As `Client.model`."""
        with _call_errors():
            return model_info(await self._stub.GetModel(digits_pb2.GetModelRequest(), metadata=self._metadata))


async def _each(images: Iterable[ImageLike] | AsyncIterable[ImageLike]) -> AsyncIterator[ImageLike]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image


@contextlib.contextmanager
def _call_errors(progress: StreamProgress | None = None) -> Iterator[None]:
    """Turn gRPC's errors into ours."""
    try:
        yield
    except grpc.RpcError as error:
        if progress and progress.silent:
            raise progress.silence() from error
        message = error.details() or "no details"
        if "larger than max" in message:
            message += "; send fewer or smaller images, or raise the server's --max-message-bytes"
        raise ClassifyError(error.code().name, message) from error
