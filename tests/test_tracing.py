"""Spans of a real server, received by a collector that the test is."""

from __future__ import annotations

import itertools
import secrets
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service import server as server_module
from service.__main__ import EXAMPLES
from service.errors import RuntimeMissing
from tests.conftest import REPOSITORY
from tests.server_process import ServerProcess, wait_until

otlp = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

SEVEN = (EXAMPLES / "seven.png").read_bytes()
RAW = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
PARENT = "b7ad6b7169203331"
CLASSIFY = "/digits.v1.DigitClassifier/Classify"


class Collector(ThreadingHTTPServer):
    """Receives spans over OTLP and HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in otlp.ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def of(self, trace: str, name: str) -> list[Any]:
        """The spans of this name in a trace."""
        return [span for span in self.spans if span.name == name and span.trace_id.hex() == trace]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield collector
        collector.shutdown()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with ServerProcess("--tracing", "on") as process:
            yield process


@pytest.fixture
def trace() -> str:
    """An id that no other test has."""
    return secrets.token_hex(16)


def classify(process: ServerProcess, request: pb.ClassifyRequest, parent: str, calls: int = 1) -> list[str]:
    """The statuses of calls that are made at the same time, with this `traceparent`."""
    with grpc.insecure_channel(process.grpc_address) as channel:
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        made = [stub.Classify.future(request, metadata=(("traceparent", parent),)) for _ in range(calls)]
        return [call.code().name for call in made]


def test_a_call_is_a_span_in_its_callers_trace_with_its_phases(
    traced: ServerProcess, collector: Collector, trace: str
) -> None:
    assert classify(traced, pb.ClassifyRequest(image=SEVEN), f"00-{trace}-{PARENT}-01") == ["OK"]
    wait_until(lambda: bool(collector.of(trace, CLASSIFY)))
    (call,) = collector.of(trace, CLASSIFY)
    assert call.parent_span_id.hex() == PARENT
    phases = [collector.of(trace, name) for name in ("receive", "decode", "queue", "run", "reply")]
    assert [len(spans) for spans in phases] == [1] * 5
    ordered = [spans[0] for spans in phases]
    assert {span.parent_span_id for span in ordered} == {call.span_id}
    for before, after in itertools.pairwise(ordered):
        assert before.start_time_unix_nano <= before.end_time_unix_nano <= after.end_time_unix_nano
    assert call.start_time_unix_nano <= ordered[0].end_time_unix_nano
    assert ordered[-1].end_time_unix_nano == call.end_time_unix_nano


def test_calls_that_share_a_run_link_to_it(traced: ServerProcess, collector: Collector, trace: str) -> None:
    assert set(classify(traced, RAW, f"00-{trace}-{PARENT}-01", calls=200)) == {"OK"}
    wait_until(lambda: len(collector.of(trace, CLASSIFY)) == 200)
    batches = {span.span_id for span in collector.of(trace, "batch")}
    links = [link.span_id for span in collector.of(trace, "run") for link in span.links]
    assert len(links) == 200
    assert set(links) == batches
    assert len(batches) < 200


def test_requests_over_http_are_spans_too(traced: ServerProcess, collector: Collector, trace: str) -> None:
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    urllib.request.urlopen(urllib.request.Request(f"{traced.http_url}/v1/classify", SEVEN, headers), timeout=10).close()
    wait_until(lambda: bool(collector.of(trace, "POST /v1/classify")))
    (span,) = collector.of(trace, "POST /v1/classify")
    assert span.parent_span_id.hex() == PARENT
    assert [each.parent_span_id for each in collector.of(trace, "decode")] == [span.span_id]


def test_a_caller_who_is_not_traced_is_not_and_a_refused_one_has_its_status(
    traced: ServerProcess, collector: Collector, trace: str
) -> None:
    refused = secrets.token_hex(16)
    assert classify(traced, RAW, f"00-{trace}-{PARENT}-00") == ["OK"]
    assert classify(traced, pb.ClassifyRequest(image=b"none"), f"00-{refused}-{PARENT}-01") == ["INVALID_ARGUMENT"]
    wait_until(lambda: bool(collector.of(refused, CLASSIFY)))
    (call,) = collector.of(refused, CLASSIFY)
    said = {each.key: each.value.string_value for each in call.attributes}
    assert said["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert not collector.of(trace, CLASSIFY)


def test_a_collector_that_is_away_holds_nothing_up(monkeypatch: pytest.MonkeyPatch, trace: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with ServerProcess("--tracing", "on") as process:
        assert classify(process, RAW, f"00-{trace}-{PARENT}-01") == ["OK"]
        code, _ = process.stop(timeout_s=30)
    assert code == 0


def test_without_the_extra_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "service.observing.tracing", None)
    with pytest.raises(RuntimeMissing, match=r"pip install 'digitserve\[tracing\]'"):
        server_module._tracing()


def test_off_it_is_not_even_imported() -> None:
    script = """
import asyncio, sys
from service.server import running
from service.settings import Settings

async def main():
    async with running(Settings(grpc_port=0, http_port=0, ops_port=0)):
        print(sorted(name for name in sys.modules if name.split(".")[0] == "opentelemetry"))

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
