"""Mutual TLS in a pod: the sidecar of the tls component, by a real Envoy before a real server."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos import digits_pb2, digits_pb2_grpc
from tests.conftest import REPOSITORY
from tests.manifests import DEPLOY, needs
from tests.proxies import endpoint, envoy_command, free_port, running
from tests.server_process import ServerProcess, wait_until

EXAMPLE = (REPOSITORY / "service" / "examples" / "seven.png").read_bytes()


def make_certificates(folder: Path) -> None:
    """An authority, and certificates of it for the server and a client, as a mounted secret has them; and a stranger's.

    A secret's files are links into the folder `..data`, itself a link, which Kubernetes replaces to renew them all.
    """
    (folder / "..first").mkdir()
    (folder / "..data").symlink_to("..first")
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (folder / name).symlink_to(f"..data/{name}")
    openssl("-subj", "/CN=authority", "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    openssl("-subj", "/CN=stranger", "-keyout", folder / "stranger.key", "-out", folder / "stranger.crt")
    sign(folder, "client", folder)
    sign(folder, "tls", folder)


def sign(authority: Path, name: str, folder: Path) -> None:
    """Make a certificate of the authority: folder/name.crt and folder/name.key."""
    by = ("-CA", authority / "ca.crt", "-CAkey", authority / "ca.key", "-addext", "subjectAltName=DNS:localhost")
    openssl(*by, "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")


def openssl(*arguments: str | Path) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    subprocess.run([needs("openssl"), "req", "-x509", *key, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def mutual_tls(tmp_path_factory: pytest.TempPathFactory, server: ServerProcess) -> Iterator[tuple[str, Path]]:
    """The sidecar of the tls component before a server; its address, and the folder of the certificates."""
    yaml = pytest.importorskip("yaml")
    folder, port = tmp_path_factory.mktemp("tls"), free_port()
    make_certificates(folder)
    component = DEPLOY / "components" / "tls"
    for name in ("server.yaml", "clients.yaml"):
        (folder / name).write_text((component / name).read_text().replace("/certificates", str(folder)))
    config = yaml.safe_load((component / "envoy.yaml").read_text().replace("/etc/envoy", str(folder)))
    (listener,), clusters = config["static_resources"]["listeners"], config["static_resources"]["clusters"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    for cluster, address in zip(clusters, (server.grpc_address, server.http_url), strict=True):
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [endpoint(address)]
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
    with running([*envoy_command(), "-c", str(folder / "envoy.yaml")]):
        yield f"localhost:{port}", folder


def classify_over_tls(address: str, folder: Path, name: str) -> int:
    """The digit that a caller with this certificate is told."""
    read = [(folder / file).read_bytes() for file in ("ca.crt", f"{name}.key", f"{name}.crt")]
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(*read)) as channel:
        request = digits_pb2.ClassifyRequest(image=EXAMPLE)
        answer = digits_pb2_grpc.DigitClassifierStub(channel).Classify(
            request, timeout=30, wait_for_ready=name != "stranger"
        )
        return answer.prediction.digit


def test_callers_with_a_certificate_are_answered(mutual_tls: tuple[str, Path]) -> None:
    address, folder = mutual_tls
    assert classify_over_tls(address, folder, "client") == 7
    command = [needs("curl"), "-sf", "--cacert", "ca.crt", "--cert", "client.crt", "--key", "client.key"]
    url = f"https://{address}/v1/classify"
    done = subprocess.run([*command, "--data-binary", "@-", url], cwd=folder, input=EXAMPLE, capture_output=True)
    assert done.returncode == 0 and b'"digit": 7' in done.stdout


def test_strangers_are_not_answered(mutual_tls: tuple[str, Path]) -> None:
    address, folder = mutual_tls
    assert classify_over_tls(address, folder, "client") == 7
    with pytest.raises(grpc.RpcError) as caught:
        classify_over_tls(address, folder, "stranger")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_renewed_certificate_is_taken_up(mutual_tls: tuple[str, Path]) -> None:
    address, folder = mutual_tls
    assert classify_over_tls(address, folder, "client") == 7
    before = certificate_of(address, folder)
    renewed = folder / "..second"
    renewed.mkdir()
    (renewed / "ca.crt").write_bytes((folder / "ca.crt").read_bytes())
    sign(folder, "tls", renewed)
    (folder / "..data_tmp").symlink_to("..second")
    (folder / "..data_tmp").rename(folder / "..data")
    wait_until(lambda: certificate_of(address, folder) != before)
    assert classify_over_tls(address, folder, "client") == 7


def certificate_of(address: str, folder: Path) -> bytes:
    """The certificate that the server shows."""
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        shown = tls.getpeercert(binary_form=True)
        assert shown is not None
        return shown
