"""Spans of a real server, received by a collector that the test is."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.__main__ import EXAMPLES
from service.client import Client
from tests.conftest import REPOSITORY
from tests.server_process import ServerProcess, wait_until

otlp = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

SEVEN = (EXAMPLES / "seven.png").read_bytes()
RAW = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Receives spans over OTLP and HTTP."""

    def __init__(self) -> None:
        self.spans: list[object] = []
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

    def named(self, name: str) -> list:  # type: ignore[type-arg]  # spans are protobuf's
        return [span for span in self.spans if span.name == name]  # type: ignore[attr-defined]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield collector
        collector.shutdown()


def classify(process: ServerProcess, request: pb.ClassifyRequest, *headers: tuple[str, str]) -> None:
    with grpc.insecure_channel(process.grpc_address) as channel:
        digits_pb2_grpc.DigitClassifierStub(channel).Classify(request, metadata=headers)


def test_a_call_is_a_span_in_its_callers_trace_with_its_phases(collector: Collector) -> None:
    with ServerProcess("--tracing", "on") as process:
        classify(process, pb.ClassifyRequest(image=SEVEN), ("traceparent", f"00-{TRACE}-{PARENT}-01"))
        wait_until(lambda: bool(collector.named("/digits.v1.DigitClassifier/Classify")))
    (call,) = collector.named("/digits.v1.DigitClassifier/Classify")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, PARENT)
    phases = [collector.named(name) for name in ("receive", "decode", "queue", "run", "reply")]
    assert [len(spans) for spans in phases] == [1] * 5
    ordered = [spans[0] for spans in phases]
    assert {span.parent_span_id for span in ordered} == {call.span_id}
    assert {span.trace_id for span in ordered} == {call.trace_id}
    for before, after in itertools.pairwise(ordered):
        assert before.start_time_unix_nano <= before.end_time_unix_nano <= after.end_time_unix_nano
    assert call.start_time_unix_nano <= ordered[0].end_time_unix_nano
    assert ordered[-1].end_time_unix_nano == call.end_time_unix_nano


def test_calls_that_share_a_run_link_to_it(collector: Collector) -> None:
    with ServerProcess("--tracing", "on") as process, ThreadPoolExecutor(16) as pool:
        with Client(process.grpc_address) as client:
            blank = np.zeros((28, 28), np.uint8)
            client.classify_batch([blank] * 1000)
            list(pool.map(lambda _: client.classify(blank), range(200)))
        wait_until(lambda: len(collector.named("run")) == 201)
    batches = {span.span_id: span for span in collector.named("batch")}
    links = [link for span in collector.named("run") for link in span.links]
    assert len(links) == 201
    assert {link.span_id for link in links} == batches.keys()
    assert len(batches) < 201
    assert {link.trace_id for link in links} == {span.trace_id for span in batches.values()}


def test_requests_over_http_are_spans_too(collector: Collector) -> None:
    with ServerProcess("--tracing", "on") as process:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        request = urllib.request.Request(f"{process.http_url}/v1/classify", SEVEN, headers)
        urllib.request.urlopen(request, timeout=10).close()
        wait_until(lambda: bool(collector.named("POST /v1/classify")))
    (span,) = collector.named("POST /v1/classify")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert [each.parent_span_id for each in collector.named("decode")] == [span.span_id]


def test_a_caller_who_is_not_traced_is_not_and_a_refused_one_has_its_status(collector: Collector) -> None:
    with ServerProcess("--tracing", "on") as process:
        classify(process, RAW, ("traceparent", f"00-{TRACE}-{PARENT}-00"))
        with pytest.raises(grpc.RpcError):
            classify(process, pb.ClassifyRequest(image=b"no image"))
        wait_until(lambda: bool(collector.named("/digits.v1.DigitClassifier/Classify")))
    (call,) = collector.named("/digits.v1.DigitClassifier/Classify")
    assert call.trace_id.hex() != TRACE
    assert {each.key: each.value.string_value for each in call.attributes}["rpc.response.status_code"] == (
        "INVALID_ARGUMENT"
    )


def test_a_collector_that_is_away_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with ServerProcess("--tracing", "on") as process:
        classify(process, RAW)
        code, log = process.stop(timeout_s=30)
    assert code == 0
    assert "Traceback (most recent call last):\n  File" not in log.partition("draining")[0]


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
