"""The log: written beside the work (S1), one line for one thing whatever callers send (S2), within bounds (S3)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import string
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc, grpc_service_pb2, grpc_service_pb2_grpc
from service.observing.logs import LineWriter, _Handler, _JsonFormatter, _TextFormatter
from service.observing.request_log import RequestLog
from tests.server_process import ServerProcess, wait_until

BLANK = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
HOSTILE = "a\nb\r\x1b[31m\x00\u2028\u202e" + "\U0001f600" * 300_000
LINE_BYTES = 2048


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends: what is written is read only if somebody does."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


class Kept(LineWriter):
    """Keeps lines instead of writing them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def put(self, line: str) -> None:
        self.lines.append(line)


def test_s1_a_reader_that_stalls_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    dropped: list[None] = []
    writer = LineWriter(pipe[1], max_lines=100, on_drop=lambda: dropped.append(None))
    for number in range(10_000):
        writer.put(f"{number} {'x' * 200}")
    assert len(dropped) > 9000
    writer.flush(0.01)
    with open(pipe[0], closefd=False) as reader:
        read = [int(next(reader).split()[0]) for _ in range(10_000 - len(dropped))]
        assert read == sorted(read) and read[0] == 0
        writer.put("10000 the next one")
        assert next(reader) == "10000 the next one\n"


def test_s1_a_reader_that_went_away_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    dropped: list[None] = []
    writer = LineWriter(pipe[1], on_drop=lambda: dropped.append(None))
    os.close(pipe[0])
    for number in range(10):
        writer.put(str(number))
    wait_until(lambda: len(dropped) == 10)


def test_lines_of_many_threads_arrive_whole(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], max_lines=10_000, on_drop=lambda: None)
    letters = string.ascii_letters

    def put(letter: str) -> None:
        for _ in range(50):
            writer.put(letter * 300)

    threads = [threading.Thread(target=put, args=letter) for letter in letters]
    for thread in threads:
        thread.start()
    with open(pipe[0], closefd=False) as reader:
        lines = [next(reader).strip() for _ in range(50 * len(letters))]
    for thread in threads:
        thread.join()
    assert sorted(lines) == sorted(c * 300 for c in letters for _ in range(50))


@pytest.mark.slow
def test_s1_nobody_reads_the_log_of_a_server_and_every_call_is_answered() -> None:
    """A pipe holds 64 kB; nothing takes a line out of either of the two."""
    with ServerProcess("--log-request-share", "1", "--log-format", "json") as process:
        with grpc.insecure_channel(process.grpc_address) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            answered = 0
            while not process.metric("digitserve_log_lines_dropped_total"):
                calls = [stub.Classify.future(BLANK) for _ in range(200)]
                answered += sum(call.result().prediction.rejection_reason == "blank" for call in calls)
            assert process.metric("grpc_server_handled_total", grpc_code="OK") == answered
            dropped = process.metric("digitserve_log_lines_dropped_total")
            assert stub.Classify(BLANK).model_version == "1"
            assert process.metric("digitserve_log_lines_dropped_total") == dropped + 1
        process.send(signal.SIGTERM)
        process.process.wait(30)
        assert process.process.returncode == 0


@pytest.fixture(scope="module")
def lines_of_hostile_requests() -> list[str]:
    """What a server wrote about requests that hold everything a caller can choose."""
    with ServerProcess("--log-request-share", "1", "--log-format", "json") as process:
        with grpc.insecure_channel(process.grpc_address) as channel:
            stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
            metadata = (
                ("x-request-id", "id " + "~" * 4000),
                ("traceparent", "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"),
            )
            output = grpc_service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=HOSTILE)
            for request in (
                grpc_service_pb2.ModelInferRequest(model_name=HOSTILE),
                grpc_service_pb2.ModelInferRequest(model_name="digits", model_version=HOSTILE),
                grpc_service_pb2.ModelInferRequest(model_name="digits", outputs=[output]),
            ):
                with pytest.raises(grpc.RpcError):
                    stub.ModelInfer(request, metadata=metadata)
        for path in ("/v2/models/%0a%1b%5b31m", "/" + "%F0%9F%98%80" * 500, "/v2/models/x%E2%80%AE"):
            headers = {"X-Request-ID": "\xff\xe9" * 2000, "User-Agent": '"} {"level": "'}
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(urllib.request.Request(process.http_url + path, headers=headers), timeout=10)
            caught.value.close()
        process.send(signal.SIGTERM)
        written: str = process.process.communicate(timeout=30)[0]
    return written.splitlines()


def test_s2_one_request_is_one_line_of_json_of_2_kb(lines_of_hostile_requests: list[str]) -> None:
    assert len(lines_of_hostile_requests) == 6
    for line in lines_of_hostile_requests:
        assert len(line.encode()) <= LINE_BYTES
        assert line.isascii() and line.isprintable()
        assert {"time", "level", "logger", "code", "ms", "method", "peer", "request_id"} <= json.loads(line).keys()


def test_a_line_tells_what_became_of_a_request(lines_of_hostile_requests: list[str]) -> None:
    read = [json.loads(line) for line in lines_of_hostile_requests]
    over_grpc = next(line for line in read if line["method"].startswith("/inference"))
    over_http = next(line for line in read if line["method"].startswith("GET /v2/models/\n"))
    assert over_grpc["method"] == "/inference.GRPCInferenceService/ModelInfer"
    assert over_grpc["code"] == "NOT_FOUND"
    assert over_grpc["error"].startswith("Request for unknown model: 'a\nb")
    assert over_grpc["request_id"].startswith("id ~~~")
    assert over_grpc["trace_id"] == "ab" * 16
    assert over_grpc["user_agent"].startswith("grpc-python/")
    assert over_grpc["peer"].startswith("ipv4:127.0.0.1:")
    assert (over_http["method"], over_http["code"]) == ("GET /v2/models/\n\x1b[31m", "404")
    assert over_http["user_agent"] == '"} {"level": "'


@settings(deadline=None)
@given(*[st.text() | st.text().map(lambda text: text * 500)] * 4)
def test_s2_whatever_the_text(method: str, peer: str, identity: str, error: str) -> None:
    kept = Kept()
    for format in ("json", "text"):
        log = RequestLog(kept, format=format, share=1)
        headers = (("x-request-id", identity), ("user-agent", identity), ("traceparent", identity), ("x-bin", b"\xff"))
        log.answered(method, "OK", 0.0012, peer=peer, headers=headers, error=error)
    in_json, in_text = kept.lines
    assert len(in_json.encode()) <= LINE_BYTES and len(in_text.encode()) <= LINE_BYTES
    assert in_json.isprintable() and in_text.isprintable()
    assert method.startswith(json.loads(in_json).get("method", ""))


@settings(deadline=None)
@given(st.text(max_size=500))
def test_s2_what_else_is_logged_has_a_line_for_itself_too(text: str) -> None:
    record = logging.LogRecord("service.x", logging.WARNING, "", 0, "model %s is no good", (text,), None)
    in_text, in_json = _TextFormatter("worker 1").format(record), _JsonFormatter("worker 1").format(record)
    assert in_text.isprintable() and in_json.isprintable()
    assert " WARNING worker 1 service.x: model " in in_text
    said = json.loads(in_json)
    assert (said["level"], said["process"], said["logger"]) == ("warning", "worker 1", "service.x")
    assert said["message"] == f"model {text} is no good"


def test_a_fault_is_logged_with_its_traceback_and_without_terminal_commands() -> None:
    try:
        raise ValueError("\x1b[31mred")
    except ValueError as error:
        record = logging.LogRecord(
            "service.errors", logging.ERROR, "", 0, "fault %s", ("ab12",), (ValueError, error, error.__traceback__)
        )
    text = _TextFormatter("").format(record)
    assert text.splitlines()[1] == "Traceback (most recent call last):"
    assert text.splitlines()[-1] == "ValueError: \\x1b[31mred"
    assert "ValueError: \x1b[31mred" in json.loads(_JsonFormatter("").format(record))["traceback"]


def test_what_is_logged_is_cut_and_what_was_dropped_is_told(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", SimpleNamespace(fileno=lambda: pipe[1]))
    handler = _Handler()
    handler.setFormatter(_TextFormatter(""))
    log = logging.Logger("service.x")
    log.addHandler(handler)
    for _ in range(3000):
        log.warning("x" * 5000)
    with open(pipe[0], closefd=False) as reader:
        line = next(reader)
        while "dropped" not in line:
            assert len(line) < 2100
            log.warning("again")
            line = next(reader)
    assert re.search(r"WARNING service.observing.logs: \d+ lines of the log were dropped", line)


def test_a_share_of_the_requests_has_lines() -> None:
    kept = Kept()
    picked = [RequestLog(kept, format="json", share=share).picks() for share in (0.5,) * 1000]
    assert 350 < sum(picked) < 650
    assert not any(RequestLog(kept, format="json", share=0).picks() for _ in range(1000))
    assert all(RequestLog(kept, format="json", share=1).picks() for _ in range(1000))


def series(process: ServerProcess) -> int:
    families = text_string_to_metric_families(process.get(f"{process.ops_url}/metrics"))
    return sum(len(family.samples) for family in families)


def test_s3_what_callers_choose_makes_no_series() -> None:
    def ask(numbers: range) -> None:
        with grpc.insecure_channel(process.grpc_address) as channel:
            stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
            calls: list[Any] = []
            for number in numbers:
                name, metadata = f"model {number}", ((f"x-{number}", str(number)),)
                calls += [
                    stub.ModelInfer.future(grpc_service_pb2.ModelInferRequest(model_name=name), metadata=metadata),
                    stub.ModelStatistics.future(grpc_service_pb2.ModelStatisticsRequest(name=name, version=name)),
                    channel.unary_unary(f"/digits.v1.DigitClassifier/M{number}", bytes, bytes).future(b""),
                    channel.unary_unary(f"/service.{number}/Call", bytes, bytes).future(b""),
                ]
            assert {call.code().name for call in calls} == {"NOT_FOUND", "UNIMPLEMENTED"}
        for number in numbers[::10]:
            for path in (f"/{number}", f"/v2/models/{number}", f"/v2/models/digits/versions/{number}/stats"):
                with pytest.raises(urllib.error.HTTPError) as caught:
                    urllib.request.urlopen(f"{process.http_url}{path}", timeout=10)
                caught.value.close()

    with ServerProcess("--triton-metrics", "on") as process:
        ask(range(20))
        before = series(process)
        ask(range(1000, 1500))
        assert series(process) <= before + 5
