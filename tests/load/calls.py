"""Rows of single calls: how soon a server answers, what a call costs, and what nothing can beat."""

from __future__ import annotations

import statistics
import time

from service.client import Client
from tests.load import asks, h2, open_loop, usage
from tests.load.asks import Ask
from tests.load.floors import empty_server
from tests.load.measuring import SLICES, Bench, in_turns, measure
from tests.pictures import encode
from tests.server_process import ServerProcess

IN_FLIGHT = (1, 8, 32, 128)
STARTS = 5
# Of the calls a second that 32 in flight reach; one has a row of its own.
OPEN_LOOP_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
NAMED_SHARE = 0.5


def start_up(bench: Bench, transport: str) -> None:
    """From starting the process to a right answer, and the memory after it."""
    seconds, memory = [], []
    with bench.report.row(name := f"{transport}: start to first right answer"):
        for _ in range(STARTS):
            began = time.perf_counter()
            with bench.server(transport) as server, Client(server.grpc_address) as client:
                if (read := client.classify(bench.images[0]).digit) != bench.digit:
                    raise RuntimeError(f"the server read a {bench.digit} as a {read}: what it does is no figure")
                seconds.append(time.perf_counter() - began)
                memory.append(usage.resident_mb(server.process.pid))
        bench.report.add("start", name, statistics.median(seconds), "s", f"median of {STARTS}")
        bench.report.add("memory", f"{transport}: resident memory after it", statistics.median(memory), "MB")


def floors(bench: Bench, transports: list[str]) -> None:
    """The model without a server, and gRPC without a model."""
    with bench.report.row("ONNX Runtime in process"):
        bench.report.add("floor", "ONNX Runtime in process, runs of 32", bench.alone_us(), "us CPU an image")
    raw = asks.raw(bench.images[0])
    for transport in transports:
        kind = f"empty {'grpc.aio' if transport == 'grpcio' else transport} call"
        with bench.report.row(kind), empty_server(bench.server_cpu, transport) as (pid, address):
            for in_flight in IN_FLIGHT:
                with bench.report.row(name := f"{kind}, {in_flight} in flight"):
                    done = measure(pid, address, raw, in_flight=in_flight, seconds=bench.seconds, cpu=bench.load_cpu)
                    bench.report.calls(name, done.load, done.cpu_us)
                    bench.report.point("in flight", kind, in_flight, done.cpu_us)


def single_calls(bench: Bench, server: ServerProcess, transport: str) -> None:
    """One image a call, in a closed and in an open loop."""
    report, raw, png = bench.report, asks.raw(bench.images[0]), asks.file(encode(bench.images[0]))
    lone_ms = rate = None
    for in_flight in IN_FLIGHT:
        with report.row(name := f"{transport}: raw image, {in_flight} in flight"):
            done = bench.measure(server, raw, in_flight)
            report.calls(name, done.load, done.cpu_us)
            report.point("in flight", transport, in_flight, done.cpu_us)
            for percent in (50, 99):
                report.point("latency", f"{transport}, {percent} %", in_flight, done.load.percentile_ms(percent))
            lone_ms = done.load.percentile_ms(50) if in_flight == 1 else lone_ms
            rate = done.rate if in_flight == 32 else rate
    for in_flight in (1, 32):
        with report.row(name := f"{transport}: PNG file, {in_flight} in flight"):
            done = bench.measure(server, png, in_flight)
            report.calls(name, done.load, done.cpu_us)
    _comparisons(bench, server, transport)
    for share in OPEN_LOOP_SHARES:
        with report.row(f"{transport}: open loop at {share:.0%} of the capacity"):
            if rate is None or lone_ms is None:
                raise RuntimeError("it needs the capacity and a lone call's time, which were not measured")
            load, cpu_us = _answered_at(bench, server, raw, share * rate)
            for percent in (50, 99):
                report.point("open loop", f"{transport}, {percent} %", share * 100, load.percentile_ms(percent))
            if share == NAMED_SHARE:
                report.calls(f"{transport}: raw image, open loop, {share * rate:,.0f} calls/s", load, cpu_us)
                times = load.percentile_ms(99) / lone_ms
                report.add("open loop", f"{transport}: its p99 over the median of a lone call", times, "x")


def _comparisons(bench: Bench, server: ServerProcess, transport: str) -> None:
    """What 32 calls in flight cost, beside what they are compared to, in turns."""
    raw, png, seconds = asks.raw(bench.images[0]), asks.file(encode(bench.images[0])), bench.seconds / SLICES
    name = f"{transport}: raw image over an empty call"
    with bench.report.row(name), empty_server(bench.server_cpu) as (pid, address):
        turns = in_turns(
            lambda: measure(pid, address, raw, in_flight=32, seconds=seconds, cpu=bench.load_cpu).cpu_us,
            lambda: bench.measure(server, raw, 32, seconds=seconds),
        )
        times = sorted(done.cpu_us / empty for done, empty in turns)
        note = f"CPU; {SLICES} slices: {', '.join(f'{each:.2f}' for each in times)}"
        bench.report.add("comparison", name, statistics.median(times), "x", note)
    with bench.report.row(name := f"{transport}: PNG file over a raw image"):
        turns = in_turns(
            lambda: bench.measure(server, raw, 32, seconds=seconds).cpu_us,
            lambda: bench.measure(server, png, 32, seconds=seconds),
        )
        more = sorted(done.cpu_us - other for done, other in turns)
        note = f"CPU; {SLICES} slices: {', '.join(f'{each:.0f}' for each in more)}"
        bench.report.add("comparison", name, statistics.median(more), "us more", note)


def _answered_at(bench: Bench, server: ServerProcess, ask: Ask, rate: float) -> tuple[h2.Load, float]:
    """Calls that arrive at a rate, all of which must be answered right, and CPU microseconds of each."""
    before = bench.read(server)
    spent = usage.cpu_seconds(server.process.pid)
    outcome = open_loop.run(server.grpc_address, ask.path, ask.body, rate=rate, seconds=bench.seconds)
    if outcome.refused.calls or outcome.unanswered:
        raise RuntimeError(
            f"of {rate:,.0f} calls a second, {outcome.answered.calls} were answered, {outcome.refused.calls} refused, "
            f"{outcome.unanswered} left without an answer"
        )
    cpu_us = (usage.cpu_seconds(server.process.pid) - spent) / outcome.answered.calls * 1e6
    bench.check(server, ask, outcome.answered.calls, before)
    return outcome.answered, cpu_us
