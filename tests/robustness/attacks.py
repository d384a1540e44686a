"""What hostile callers send, each for some seconds: HTTP/2 frames by hand, messages, and more of them than fit."""

from __future__ import annotations

import contextlib
import signal
import struct
import threading
import time
import zlib

import grpc

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from tests.robustness import http2
from tests.robustness.beside import Attack
from tests.robustness.http2 import Connection, frame
from tests.robustness.processes import descriptors
from tests.server_process import ServerProcess


def frames(*pieces: bytes) -> Attack:
    """Send the same frames again and again, anew whenever the server has closed."""

    def attack(server: ServerProcess, until: float) -> str:
        sent = closed = 0
        while time.monotonic() < until:
            with contextlib.suppress(OSError), Connection(server.grpc_address, timeout_s=1) as connection:
                connection.greet()
                connection.open(1)
                while time.monotonic() < until:
                    connection.send(*pieces * 50)
                    sent += 50 * len(pieces)
            closed += 1
        return f"{sent} frames, {closed} connections"

    return attack


def rapid_reset(server: ServerProcess, until: float) -> str:
    """CVE-2023-44487: open streams and reset them at once."""
    sent = 0
    while time.monotonic() < until:
        with contextlib.suppress(OSError), Connection(server.grpc_address, timeout_s=1) as connection:
            connection.greet()
            for stream in range(1, 1 << 30, 2):
                connection.open(stream)
                connection.send(frame(http2.RST_STREAM, 0, stream, http2.CANCEL))
                sent += 1
                if time.monotonic() > until:
                    break
    return f"{sent} streams"


def idle_connections(server: ServerProcess, until: float) -> str:
    """T5: a thousand connections that do nothing, and one more."""
    before = descriptors(server.process.pid)
    with contextlib.ExitStack() as stack:
        opened = 0
        for _ in range(900):
            with contextlib.suppress(OSError):
                stack.enter_context(Connection(server.grpc_address, timeout_s=1)).greet()
                opened += 1
        time.sleep(max(until - time.monotonic(), 0))
        held = descriptors(server.process.pid) - before
    return f"{opened} connections, {held} descriptors"


def slow_bodies(server: ServerProcess, until: float) -> str:
    """T8: fifty messages, a byte now and then."""
    with Connection(server.grpc_address) as connection:
        connection.greet()
        streams = range(1, 101, 2)
        for stream in streams:
            connection.open(stream)
        while time.monotonic() < until:
            for stream in streams:
                connection.send(frame(http2.DATA, 0, stream, b"\0"))
            time.sleep(0.5)
    return "50 streams"


def large_bodies(server: ServerProcess, until: float) -> str:
    """T11: 1,000 bodies of 1 MiB at once, over ten connections."""
    codes: dict[str, int] = {}
    request = pb.ClassifyRequest(image=bytes(1 << 20))
    with contextlib.ExitStack() as stack:
        calls = []
        for _ in range(10):
            channel = stack.enter_context(
                grpc.insecure_channel(server.grpc_address, [("grpc.use_local_subchannel_pool", 1)])
            )
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            calls += [stub.Classify.future(request, timeout=60) for _ in range(100)]
        for call in calls:
            name = call.code().name
            codes[name] = codes.get(name, 0) + 1
    return str(codes)


def gzip_bomb(server: ServerProcess, until: float) -> str:
    """I10: 1 MiB that unpacks to 1 GiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1 << 10)) + packer.flush()
    with Connection(server.grpc_address) as connection:
        connection.greet()
        connection.open(1, http2.call_headers(**{"grpc-encoding": "gzip"}))
        began = time.monotonic()
        connection.send_message(1, b"\x01" + struct.pack(">I", len(bomb)) + bomb)
        connection.until(http2.HEADERS, http2.RST_STREAM)
        return f"answered in {(time.monotonic() - began) * 1e3:.0f} ms"


def empty_fields(server: ServerProcess, until: float) -> str:
    """I11: 4 MiB of empty elements."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", None, None
        )
        error = call.future(b"\x0a\x06digits" + b"\x2a\0" * (2 << 20), timeout=60).exception()
        return error.code().name if isinstance(error, grpc.RpcError) else "answered"


def overload(server: ServerProcess, until: float) -> str:
    """O1 to O3: more batches than fit, from 60 callers, while `/readyz` is asked."""
    counts: dict[str, int] = {}
    lock = threading.Lock()
    batch = pb.ClassifyBatchRequest(format=pb.IMAGE_FORMAT_RAW_28X28, images=[bytes(784)] * 512)

    def call() -> None:
        with grpc.insecure_channel(server.grpc_address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = digits_pb2_grpc.DigitClassifierStub(channel)
            while time.monotonic() < until:
                code = stub.ClassifyBatch.future(batch, timeout=60).code().name
                with lock:
                    counts[code] = counts.get(code, 0) + 1

    callers = [threading.Thread(target=call) for _ in range(30)]
    for caller in callers:
        caller.start()
    ready = asked = 0
    while time.monotonic() < until:
        asked += 1
        with contextlib.suppress(OSError):
            ready += server.get(f"{server.ops_url}/readyz") == "ok\n"
        time.sleep(0.05)
    for caller in callers:
        caller.join()
    return f"{counts}, ready {ready} of {asked} times"


def silent_reader(server: ServerProcess, until: float) -> str:
    """O11: streams whose caller sends and never reads."""
    item = pb.ClassifyStreamRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784)).SerializeToString()
    sent = 0
    with contextlib.suppress(OSError), Connection(server.grpc_address, timeout_s=2) as connection:
        # A window of nothing: no answer can be sent.
        connection.greet(struct.pack(">HI", 4, 0))
        connection.open(1, http2.call_headers("/digits.v1.DigitClassifier/ClassifyStream"))
        while time.monotonic() < until and sent < 60:
            connection.send(frame(http2.DATA, 0, 1, http2.message(item)))
            sent += 1
        time.sleep(max(until - time.monotonic(), 0))
    return f"{sent} images"


def stalled(server: ServerProcess, until: float) -> str:
    """A process that stands still for a second, and goes on."""
    server.send(signal.SIGSTOP)
    time.sleep(1)
    server.send(signal.SIGCONT)
    return "1 s"


PING = frame(http2.PING, 0, 0, bytes(8))
ATTACKS: dict[str, Attack] = {
    "T1 rapid reset": rapid_reset,
    "T2 made you reset": frames(frame(http2.WINDOW_UPDATE, 0, 1, bytes(4))),
    "T2 pings": frames(PING),
    "T2 settings": frames(frame(http2.SETTINGS, 0, 0)),
    "T2 empty data": frames(frame(http2.DATA, 0, 1)),
    "T2 continuation": frames(
        frame(http2.HEADERS, 0, 3, http2.call_headers()),
        frame(http2.CONTINUATION, 0, 3, http2.header_block({"x": "y"})),
    ),
    "T2 window updates": frames(frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))),
    "T5 idle connections": idle_connections,
    "T8 slow bodies": slow_bodies,
    "T10 garbage": frames(bytes(range(256))),
    "T11 large bodies": large_bodies,
    "I10 gzip bomb": gzip_bomb,
    "I11 empty fields": empty_fields,
    "O1 overload": overload,
    "O11 silent reader": silent_reader,
    "L7 stalled": stalled,
}
# In which the server is full, and may say so to the good caller too.
FILLING = (large_bodies, overload)
