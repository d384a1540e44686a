"""Which transport is taken, and where it is told."""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos import digits_pb2 as pb
from protos import digits_pb2_grpc
from service.errors import InvalidSetting, PortUnavailable, RuntimeMissing
from service.over_grpc import transport as transport_module
from service.over_grpc.grpcio_options import grpcio_options
from service.over_grpc.transport import Transport, choose
from service.server import NOT_NATIVE
from service.settings import Settings
from tests.robustness import http2
from tests.robustness.http2 import Connection
from tests.server_process import ServerProcess


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "PACKAGE", "json")


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "PACKAGE", "no_such_package")


def test_auto_takes_native_where_it_is_installed(installed: None) -> None:
    assert choose("auto", not_native=[]) == Transport("native", "installed, and has all that is asked for")


def test_auto_takes_grpcio_for_what_native_lacks(installed: None) -> None:
    reason = "the native transport has nothing for --tls-cert-file, --token-file"
    assert choose("auto", not_native=["--tls-cert-file", "--token-file"]) == Transport("grpcio", reason)


def test_auto_takes_grpcio_where_native_is_missing(missing: None) -> None:
    assert choose("auto", not_native=[]) == Transport("grpcio", "pygrpc-native is not installed")


def test_grpcio_can_be_asked_for(installed: None) -> None:
    assert choose("grpcio", not_native=["--token-file"]) == Transport("grpcio", "asked for")


def test_native_that_is_asked_for_and_missing(missing: None) -> None:
    with pytest.raises(RuntimeMissing, match="--transport native needs pygrpc-native; run: pip install"):
        choose("native", not_native=[])


def test_native_that_is_asked_for_with_what_it_lacks(installed: None) -> None:
    with pytest.raises(InvalidSetting, match="--transport native has nothing for --token-file; leave that out, or use"):
        choose("native", not_native=["--token-file"])


@pytest.mark.parametrize(
    ("folder", "is_there", "reason"),
    [("d" * 110, True, "its path is too long"), ("none", False, "No such file or directory")],
)
def test_native_needs_a_folder_for_a_unix_socket(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, is_there: bool, reason: str
) -> None:
    if is_there:
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / folder))
    problem = f"the folder of temporary files cannot hold a Unix socket: {reason}"
    assert choose("auto", not_native=[]) == Transport("grpcio", f"for the native transport, {problem}")
    with pytest.raises(PortUnavailable) as error:
        choose("native", not_native=[])
    assert str(error.value) == f"--transport native: {problem}; set TMPDIR to another, or use --transport grpcio"


def test_settings_tell_which_of_them_were_changed() -> None:
    settings = Settings(max_batch_images=7)
    assert settings.changed("max_batch_images", "max_image_bytes") == ["--max-batch-images"]


@pytest.mark.parametrize(("flag", "value"), [("--max-connections", "1000"), ("--connection-age-s", "120")])
def test_auto_takes_grpcio_for_what_native_lacks_also_where_the_value_is_that_of_auto(flag: str, value: str) -> None:
    settings = Settings.load({flag.removeprefix("--").replace("-", "_"): value}, {})
    assert settings.changed(*NOT_NATIVE) == [flag]
    assert grpcio_options(settings) == grpcio_options(Settings())


def test_the_transport_is_told_by_call_and_metric(
    transport: str, server: ServerProcess, stub: digits_pb2_grpc.DigitClassifierStub
) -> None:
    model = stub.GetModel(pb.GetModelRequest())
    assert (model.transport, model.transport_reason) == (transport, "asked for")
    assert server.metric("digitserve_transport_info", name=transport, reason="asked for") == 1


def test_a_process_takes_a_transport_by_itself_and_logs_why() -> None:
    with ServerProcess("--transport", "auto") as server:
        expected = "native" if importlib.util.find_spec("pygrpc_native") else "grpcio"
        assert server.metric("digitserve_transport_info", name=expected) == 1
        _, stderr = server.stop()
    assert f"gRPC calls are carried by {expected}: " in stderr


def test_what_the_transports_answer_by_themselves(transport: str, server: ServerProcess) -> None:
    """Before any code of ours: the table in docs/performance.md."""
    raw = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784)).SerializeToString()
    with grpc.insecure_channel(server.grpc_address) as channel:

        def code(message: bytes, method: str = "Classify", **call: Any) -> grpc.StatusCode:
            ask: Any = channel.unary_unary(f"/digits.v1.DigitClassifier/{method}")
            try:
                ask.with_call(message, timeout=30, **call)
            except grpc.RpcError as error:
                status: grpc.StatusCode = error.code()
                return status
            return grpc.StatusCode.OK

        assert code(raw, compression=grpc.Compression.Gzip) == grpc.StatusCode.OK
        assert code(raw, method="Guess") == grpc.StatusCode.UNIMPLEMENTED
        assert code(bytes(17 << 20)) == grpc.StatusCode.RESOURCE_EXHAUSTED
        too_much = code(raw, metadata=(("x-much", "m" * 20_000),))
        assert too_much == {"grpcio": grpc.StatusCode.RESOURCE_EXHAUSTED, "native": grpc.StatusCode.UNKNOWN}[transport]


@pytest.mark.parametrize(
    ("headers", "flags", "answered"),
    [
        ({}, http2.END_STREAM, {"grpcio", "native"}),
        ({"grpc-timeout": "abc"}, http2.END_STREAM, {"native"}),
        ({"grpc-timeout": "-1S"}, http2.END_STREAM, {"native"}),
        # The caller may have more to send.
        ({}, 0, {"grpcio"}),
    ],
)
def test_what_the_transports_make_of_odd_calls(
    transport: str, server: ServerProcess, headers: dict[str, str], flags: int, answered: set[str]
) -> None:
    """The same table."""
    raw = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784)).SerializeToString()
    if transport not in answered:
        headers = {"grpc-timeout": "300m", **headers}
    with Connection(server.grpc_address) as connection:
        connection.greet()
        connection.open(1, http2.call_headers(**headers))
        connection.send(http2.frame(http2.DATA, flags, 1, http2.message(raw)))
        ended = (kind for kind, bits, stream, _ in connection.frames() if stream == 1 and ends_or_answers(kind, bits))
        assert (next(ended) == http2.DATA) == (transport in answered)


def ends_or_answers(kind: int, flags: int) -> bool:
    """Whether a frame is an answer, or says that there will be none."""
    return kind in (http2.DATA, http2.RST_STREAM) or (kind == http2.HEADERS and bool(flags & http2.END_STREAM))


async def test_more_calls_at_a_time_than_a_connection_may_have(server: ServerProcess) -> None:
    request = pb.ClassifyRequest(format=pb.IMAGE_FORMAT_RAW_28X28, image=bytes(784))
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        stub = digits_pb2_grpc.DigitClassifierStub(channel)
        answers = await asyncio.gather(*(stub.Classify(request, timeout=60) for _ in range(300)))
    assert {answer.prediction.rejection_reason for answer in answers} == {"blank"}
