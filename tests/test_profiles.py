"""`--profile production`: what is for developers is not there, whatever else is asked for (S8)."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc
import pytest

from service.client import Client
from service.errors import InvalidSetting
from service.settings import Settings
from tests.server_process import ServerProcess


@pytest.fixture(scope="module")
def production() -> Iterator[ServerProcess]:
    with ServerProcess("--profile", "production") as process:
        yield process


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
        "/inference.GRPCInferenceService/TraceSetting",
        "/inference.GRPCInferenceService/LogSettings",
    ],
)
def test_s8_what_is_for_developers_is_not_there(production: ServerProcess, path: str) -> None:
    with grpc.insecure_channel(production.grpc_address) as channel, pytest.raises(grpc.RpcError) as caught:
        if "Reflection" in path:
            next(channel.stream_stream(path, bytes, bytes)(iter([b""]), timeout=10))
        else:
            channel.unary_unary(path, bytes, bytes)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("action", ["load", "unload"])
def test_s8_models_are_not_loaded_by_a_request(production: ServerProcess, action: str) -> None:
    request = urllib.request.Request(f"{production.http_url}/v2/repository/models/digits/{action}", b"{}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value:
        assert caught.value.code == 501


def test_s8_there_is_no_page(production: ServerProcess) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{production.http_url}/", timeout=10)
    with caught.value as answer:
        assert answer.code == 404


def test_a_server_in_production_still_does_its_work(production: ServerProcess) -> None:
    with Client(production.grpc_address) as client:
        assert client.model().version == "1"
        # Whether or not the native one is installed.
        assert client.model().transport == "grpcio"


def test_reflection_can_be_left_out_by_itself() -> None:
    assert Settings.load({"reflection": "off"}, {}).reflection == "off"
    assert Settings.load({}, {}).reflection == "on"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            {"reflection": "on"},
            "--reflection (DIGITSERVE_REFLECTION) must be off with --profile production, not 'on'",
        ),
        (
            {"transport": "native"},
            "--transport (DIGITSERVE_TRANSPORT) must be grpcio with --profile production, not 'native'",
        ),
        (
            {"model_control": "explicit"},
            "--model-control (DIGITSERVE_MODEL_CONTROL) must be none or poll with --profile production, not 'explicit'",
        ),
    ],
)
def test_s8_the_profile_allows_no_exception(flags: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load(flags, {"DIGITSERVE_PROFILE": "production"})
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"profile": "prod"}, "--profile (DIGITSERVE_PROFILE): must be one of default, production, not 'prod'"),
        (
            {"tls_cert_file": "c"},
            "--tls-cert-file (DIGITSERVE_TLS_CERT_FILE) and --tls-key-file (DIGITSERVE_TLS_KEY_FILE)",
        ),
        ({"tls_client_ca_file": "c"}, "--tls-client-ca-file (DIGITSERVE_TLS_CLIENT_CA_FILE) needs --tls-cert-file"),
    ],
)
def test_settings_of_access_that_do_not_go_together_are_named(flags: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load(flags, {})
    assert text in str(caught.value)
