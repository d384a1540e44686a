"""Asks the running service as its users do: starts `service serve` or calls one that runs, and sends batches over gRPC.

Knows the protocol only, nothing of the service's code: what it measures is what a user gets.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from protos import digits_pb2, digits_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

BATCH_IMAGES = 128
TIMEOUT_S = 300.0
REFUSED = "refused"


class ServiceError(Exception):
    """The service cannot be started or asked; the text says which and what it answered."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image to ask about.

    Attributes:
        image: The content of an image file, or 784 bytes if `raw`.
        label: The digit it shows, 0 to 9; -1 for none.
        raw: Whether it is sent as RAW_28X28.
        name: Of the file it was read from, if it was.
    """

    image: bytes
    label: int = -1
    raw: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service says of an image.

    Attributes:
        digit: 0 to 9; -1 where the service refused the image.
        confidence: Of the digit, 0 to 1.
        probabilities: Ten of them; zeros where it was refused.
        digit_score: How much it looks like any digit; NaN where it was refused.
        reason: "blank", "not a digit", "ambiguous", "" for an answer to trust, or "refused".
        error: Why it was refused.
    """

    digit: int
    confidence: float
    probabilities: tuple[float, ...]
    digit_score: float
    reason: str
    error: str = ""


@contextlib.contextmanager
def served(models_dir: Path) -> Iterator[str]:
    """Serve the newest model of a folder from a process of its own, on free ports; yields host:port of gRPC.

    To be called in the main thread: SIGTERM and SIGHUP, which a terminal that is closed sends, end this process by
    SystemExit, so that the server does not outlive it.

    Raises:
        ServiceError: It does not start; the text has its last line.
    """
    free_ports = ["--grpc-port", "0", "--http-port", "0", "--ops-port", "0"]
    command = [sys.executable, "-m", "service", "serve", "--models-dir", str(models_dir), *free_ports]
    with (
        _exit_on(signal.SIGTERM, signal.SIGHUP),
        tempfile.TemporaryFile("w+") as log,  # a pipe that nobody reads would fill up and stop the server
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            # The lines before its ports, and none once it has ended.
            for line in process.stdout:
                if found := re.match(r" *gRPC +(\S+)$", line):
                    yield found[1]
                    return
            process.wait()
            log.seek(0)
            last_line = (log.read().splitlines() or ["it says nothing"])[-1]
            raise ServiceError(f"`service serve` ended with exit code {process.returncode}: {last_line}")
        finally:
            process.terminate()


@contextlib.contextmanager
def _exit_on(*signals: signal.Signals) -> Iterator[None]:
    """Let signals end this process by SystemExit while the context lasts."""
    before = {signum: signal.signal(signum, lambda number, _: sys.exit(128 + number)) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Service:
    """A running service; a context manager."""

    def __init__(self, address: str):
        """Connect to host:port when first used."""
        self._address = address
        # The service bounds what it accepts, and its answers are smaller than what they answer.
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        self._stub = digits_pb2_grpc.DigitClassifierStub(self._channel)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._channel.close()

    def model(self) -> digits_pb2.GetModelResponse:
        """Which model answers, and what the service accepts.

        Raises:
            ServiceError: It does not answer.
        """
        try:
            return self._stub.GetModel(digits_pb2.GetModelRequest(), timeout=10)
        except grpc.RpcError as error:
            raise self._failed(error) from None

    def ask(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Answer]]:
        """Ask about samples, all of them raw or none; yields each with its answer, in order.

        While the service works on one batch the next is drawn from `samples`.

        Raises:
            ServiceError: The service cannot be reached or fails.
        """
        limits = self.model().limits
        most_bytes = limits.max_image_bytes
        under_way: list[tuple[list[Sample], grpc.Future[digits_pb2.ClassifyBatchResponse]]] = []
        for batch in batches(samples, BATCH_IMAGES, limits.max_message_bytes // 2):
            format = digits_pb2.IMAGE_FORMAT_RAW_28X28 if batch[0].raw else digits_pb2.IMAGE_FORMAT_ENCODED
            # A file above the limit could take its whole message beyond what is accepted.
            images = [sample.image if len(sample.image) <= most_bytes else b"" for sample in batch]
            request = digits_pb2.ClassifyBatchRequest(format=format, images=images)
            under_way.append((batch, self._stub.ClassifyBatch.future(request, timeout=TIMEOUT_S)))
            if len(under_way) > 1:
                yield from self._answers(*under_way.pop(0), most_bytes)
        for waiting in under_way:
            yield from self._answers(*waiting, most_bytes)

    def _answers(
        self, batch: list[Sample], call: grpc.Future[digits_pb2.ClassifyBatchResponse], most_bytes: int
    ) -> Iterator[tuple[Sample, Answer]]:
        try:
            response = call.result()
        except grpc.RpcError as error:
            raise self._failed(error) from None
        for sample, result in zip(batch, response.results, strict=True):
            if (size := len(sample.image)) > most_bytes:
                yield sample, _refused(f"the file has {size} bytes, the service's limit is {most_bytes}")
            else:
                yield sample, _answer(result)

    def _failed(self, error: grpc.RpcError) -> ServiceError:
        return ServiceError(f"the service at {self._address}: {error.code().name}: {error.details()}")


def batches(samples: Iterable[Sample], most_images: int, most_bytes: int) -> Iterator[list[Sample]]:
    """Cut samples into batches of at most so many images and bytes; a larger image is alone in its batch."""
    batch: list[Sample] = []
    size = 0
    for sample in samples:
        if batch and (len(batch) == most_images or size + len(sample.image) > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(sample)
        size += len(sample.image)
    if batch:
        yield batch


def _refused(error: str) -> Answer:
    return Answer(-1, 0.0, (0.0,) * 10, float("nan"), REFUSED, error)


def _answer(result: digits_pb2.ItemResult) -> Answer:
    if result.HasField("error"):
        return _refused(result.error.message)
    found = result.prediction
    return Answer(found.digit, found.confidence, tuple(found.probabilities), found.digit_score, found.rejection_reason)
