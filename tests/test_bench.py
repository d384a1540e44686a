"""What `make bench` makes of what it measures: it reads other programs' words, and no failure costs other figures."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.load import asks, h2, plots, second_opinion
from tests.load.measuring import Bench, Measured, in_turns, measure
from tests.load.report import Report
from tests.load.targets import targets
from tests.mnist_files import small_digits
from tests.server_process import COMMAND, ServerProcess

H2LOAD_SAID = """
finished in 2.01s, 3100.50 req/s, 439.18KB/s
requests: 6201 total, 6233 started, 6201 done, 6201 succeeded, 0 failed, 0 errored, 0 timeout
traffic: 878.35KB (899433) total, 12.16KB (12450) headers (space savings 94.72%), 696.40KB (713115) data
"""
PERF_ANALYZER_SAID = """
  Client:
    Request count: 9146
    Throughput: 3048.31 infer/sec
    p50 latency: 8219 usec
    p90 latency: 17043 usec
    p95 latency: 20511 usec
    p99 latency: 36308 usec
    Avg gRPC time: 10462 usec ((un)marshal request/response 4 usec + response wait 10458 usec)
"""
LOAD = h2.Load(3000, 1.5, np.array([0.001, 0.002, 0.003]))
needs_h2load = pytest.mark.skipif(not h2.is_installed(), reason="h2load is not installed (Debian's nghttp2-client)")


def fail(why: str) -> None:
    raise h2.NothingAnswered(why)


def test_the_size_of_an_answer_is_read_from_h2load() -> None:
    assert h2.answer_bytes(H2LOAD_SAID) == 115
    assert np.isnan(h2.answer_bytes("finished in 0.00us"))


def test_throughput_and_latencies_are_read_from_perf_analyzer() -> None:
    assert second_opinion.parse(PERF_ANALYZER_SAID) == (3048.31, {50: 8.219, 99: 36.308})
    with pytest.raises(RuntimeError, match="no throughput or latency, but: Failed to obtain stable measurement"):
        second_opinion.parse("Failed to obtain stable measurement.")


def test_a_row_that_fails_says_why_and_the_others_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    with report.row("grpcio: raw image, 1 in flight"):
        report.calls("grpcio: raw image, 1 in flight", LOAD, 123.4)
    with report.row("grpcio: raw image, 8 in flight"):
        fail("127.0.0.1:8001 answered nothing in 4 s")
    with report.row("memory"):
        report.add("memory", "resident memory after it", 118.5, "MB")
    printed = capsys.readouterr().out.splitlines()[-3:]
    assert printed == [
        "grpcio: raw image, 1 in flight                        2,000 calls/s     123.4 us CPU a call   "
        "p50 2.00, p99 2.98, p99.9 3.00 ms",
        "grpcio: raw image, 8 in flight                   FAILED  NothingAnswered: "
        "127.0.0.1:8001 answered nothing in 4 s",
        "resident memory after it                              118.5 MB",
    ]
    figures, lines, _ = report.write(tmp_path)
    assert lines.read_text().splitlines()[-3:] == printed
    written = json.loads(figures.read_text())
    assert [figure["value"] for figure in written["figures"]] == [2000, 118.5]
    assert written["figures"][0]["cpu_us"] == 123.4 and written["figures"][0]["latencies_ms"]["p50"] == 2
    assert written["failed"] == {
        "grpcio: raw image, 8 in flight": "NothingAnswered: 127.0.0.1:8001 answered nothing in 4 s"
    }
    assert written["machine"]["packages"].keys() >= {"digitserve", "onnxruntime"}


def test_targets_are_reached_or_missed_and_told_of_what_was_measured() -> None:
    report = Report()
    report.calls("native: raw image, 32 in flight", LOAD, 150.0)
    report.add("comparison", "grpcio: raw image over an empty call", 1.5, "x")
    report.add("comparison", "grpcio: PNG file over a raw image", 170.0, "us more")
    report.add("comparison", "grpcio: ClassifyStream, raw images, of in process", 50.0, "%")
    report.add("workers", "grpcio: 2 workers on cores of their own", 1900.0, "calls/s")
    report.add("workers", "grpcio: 1 worker, load on another core", 1000.0, "calls/s")
    report.add("start", "native: start to first right answer", 0.5, "s")
    told = {}
    for target, of in targets(["grpcio", "native"]):
        with contextlib.suppress(KeyError):
            told[target.name] = (value := of(report.figures)), target.verdict(value)
    assert told == {
        "grpcio: raw image over an empty call, CPU": (1.5, "at most 1.8: reached"),
        "grpcio: PNG file over a raw image, CPU": (170.0, "at most 160: MISSED"),
        "grpcio: ClassifyStream, raw images, of in process": (50.0, "at least 60: MISSED"),
        "grpcio: 2 workers over 1": (1.9, "at least 1.8: reached"),
        "native: raw images with 32 in flight": (2000.0, "at least 15000: MISSED"),
        "native: start to first right answer": (0.5, "at most 0.8: reached"),
    }


def test_what_is_compared_to_a_floor_is_measured_in_turns_with_it() -> None:
    floors, costs, order = iter([100.0, 110.0, 130.0]), iter([200.0, 300.0]), []

    def floor() -> float:
        order.append("floor")
        return next(floors)

    def work() -> Measured:
        order.append("work")
        return Measured(LOAD, next(costs))

    assert [(done.cpu_us, beside) for done, beside in in_turns(floor, work, slices=2)] == [(200, 105), (300, 120)]
    assert order == ["floor", "work", "floor", "work", "floor"]


def test_the_pictures_show_what_there_is(tmp_path: Path) -> None:
    report = Report()
    report.calls("grpcio: raw image, 1 in flight", LOAD, 123.4)
    for panel in plots.PANELS:
        for line in ("grpcio, 50 %", "native, 99 %"):
            for x in ("grpcio", "native") if panel == "workers" else (1, 8, 32):
                report.point(panel, line, x, 100.0)
    report.floor("batch", "ONNX Runtime in process", 45.0)
    written = report.write(tmp_path)
    assert [path.name for path in written] == ["bench.json", "bench.txt", "bench.png", "bench-growth.png"]
    for path in written[2:]:
        with Image.open(path) as picture:
            assert len(np.unique(np.asarray(picture))) > 50
    growth = json.loads(written[0].read_text())["growth"]
    assert growth.keys() == plots.PANELS.keys()
    assert growth["batch"]["floors"] == {"ONNX Runtime in process": 45.0}
    assert growth["workers"]["lines"]["native, 99 %"] == [["grpcio", 100.0], ["native", 100.0]]


@needs_h2load
def test_only_right_answers_are_a_figure() -> None:
    images, labels = small_digits("t10k")
    digit, ask = int(labels[0]), asks.infer(images[0], 1)
    with ServerProcess() as server:
        done = Bench(COMMAND, 0.5, images, digit, Report()).measure(server, ask, 4)
        assert done.load.calls == len(done.load.latencies) > 0 and done.cpu_us > 0
        # A message of the Open Inference Protocol with 11 numbers of 4 bytes, and the 5 bytes before it.
        assert 44 < done.load.answer_bytes < 200
        other = Bench(COMMAND, 0.5, images, (digit + 1) % 10, Report())
        with pytest.raises(RuntimeError, match=f"expected only {(digit + 1) % 10}: what it does is no figure"):
            other.measure(server, ask, 4)
        refused = asks.Ask(f"{ask.path}Nothing", ask.body)
        with pytest.raises(RuntimeError, match="expected only"):
            other.measure(server, refused, 4)


@needs_h2load
def test_a_server_that_answers_nothing_is_an_error_with_what_h2load_saw() -> None:
    with ServerProcess() as server:
        server.send(signal.SIGSTOP)
        try:
            with pytest.raises(h2.NothingAnswered, match=r"answered nothing in 0.1 s; h2load: requests: 0 total"):
                h2.closed_loop(server.grpc_address, "/any", h2.body(b""), in_flight=1, seconds=0.1, cpu="0")
        finally:
            server.send(signal.SIGCONT)


def test_a_load_that_was_answered_nothing_is_tried_again_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def closed_loop(*_: object, seconds: float, **__: object) -> h2.Load:
        tried.append(seconds)
        if len(tried) <= 2:
            raise h2.NothingAnswered("nothing")
        return LOAD

    monkeypatch.setattr(h2, "closed_loop", closed_loop)
    ask = asks.Ask("/any", b"")
    done = measure(os.getpid(), "127.0.0.1:1", ask, in_flight=1, seconds=2, cpu=0)
    assert (done.load, tried) == (LOAD, [1, 4, 16, 32])
