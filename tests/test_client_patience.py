"""The client against servers that go away, keep silent or have to wait: retries and deadlines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from protos import digits_pb2, digits_pb2_grpc
from service.client import AsyncClient, ClassifyError, Client, ImageLike
from tests.pictures import Pixels
from tests.server_process import ServerProcess

Digits = tuple[Pixels, Pixels]


class Flaky(digits_pb2_grpc.DigitClassifierServicer):
    """Answers UNAVAILABLE, as a server that goes away does, until it has been asked three times."""

    def __init__(self) -> None:
        self.asked = 0

    def Classify(self, request: digits_pb2.ClassifyRequest, context: Any) -> digits_pb2.ClassifyResponse:
        self.asked += 1
        if self.asked < 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        return digits_pb2.ClassifyResponse(prediction=digits_pb2.Prediction(digit=4))


@pytest.mark.parametrize(("max_attempts", "asked"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_unavailable_is_tried_again_up_to_the_limit(digits: Digits, max_attempts: int, asked: int) -> None:
    flaky = Flaky()  # type: ignore[abstract]
    server = grpc.server(ThreadPoolExecutor(2))
    digits_pb2_grpc.add_DigitClassifierServicer_to_server(flaky, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}", max_attempts=max_attempts) as client:
            if max_attempts < 3:
                with pytest.raises(ClassifyError, match="UNAVAILABLE: going away"):
                    client.classify(digits[0][0])
            else:
                assert client.classify(digits[0][0]).digit == 4
    finally:
        server.stop(None).wait()
    assert flaky.asked == asked


@pytest.fixture
def silent_address() -> Iterator[str]:
    """A server that never answers."""

    class Silent(digits_pb2_grpc.DigitClassifierServicer):
        def Classify(self, request: Any, context: Any) -> Any:
            ended.wait(60)

        def ClassifyStream(self, requests: Any, context: Any) -> Any:
            for _ in requests:
                pass
            ended.wait(60)
            yield from ()

    ended = threading.Event()
    server = grpc.server(ThreadPoolExecutor(8))
    digits_pb2_grpc.add_DigitClassifierServicer_to_server(Silent(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    ended.set()
    server.stop(None).wait()


def test_a_call_without_an_answer_ends_at_its_deadline(silent_address: str, digits: Digits) -> None:
    for attempts in (1, 5):
        with (
            Client(silent_address, timeout_s=0.2, max_attempts=attempts) as client,
            pytest.raises(ClassifyError, match="DEADLINE_EXCEEDED"),
        ):
            client.classify(digits[0][0])


def test_a_stream_without_answers_ends(silent_address: str, digits: Digits) -> None:
    silence = pytest.raises(ClassifyError, match=r"DEADLINE_EXCEEDED: no answer came for 0\.2 s")
    with Client(silent_address, timeout_s=0.2) as client, silence:
        list(client.classify_stream([digits[0][0]]))


async def test_a_stream_without_answers_ends_for_asyncio_too(silent_address: str, digits: Digits) -> None:
    async with AsyncClient(silent_address, timeout_s=0.2) as client:
        with pytest.raises(ClassifyError, match=r"DEADLINE_EXCEEDED: no answer came for 0\.2 s"):
            _ = [result async for result in client.classify_stream([digits[0][0]])]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                _ = [result async for result in client.classify_stream([digits[0][0]])]


def test_a_caller_who_sends_slowly_may_take_its_time(server: ServerProcess, digits: Digits) -> None:
    def slowly() -> Iterator[ImageLike]:
        yield digits[0][0]
        time.sleep(0.5)
        yield digits[0][1]

    with Client(server.grpc_address, timeout_s=0.1) as client:
        assert len(list(client.classify_stream(slowly()))) == 2


def test_a_caller_who_is_busy_with_an_answer_may_take_its_time(server: ServerProcess, digits: Digits) -> None:
    with Client(server.grpc_address, timeout_s=0.1) as client:
        received = 0
        for _ in client.classify_stream(digits[0][:20]):
            received += 1
            if received == 1:
                time.sleep(0.5)
    assert received == 20


def test_an_exit_in_the_callers_iterator_does_not_hang(client: Client, digits: Digits) -> None:
    def images() -> Iterator[ImageLike]:
        yield digits[0][0]
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        list(client.classify_stream(images()))
