"""Mutual TLS in a pod: the sidecar of the tls component, by a real Envoy before a real server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos import digits_pb2, digits_pb2_grpc
from tests.certificates import certificate_of, make_certificates, renew
from tests.conftest import REPOSITORY
from tests.manifests import DEPLOY, needs
from tests.proxies import endpoint, envoy_command, free_port, running
from tests.server_process import ServerProcess, wait_until

EXAMPLE = (REPOSITORY / "service" / "examples" / "seven.png").read_bytes()


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
    renew(folder)
    wait_until(lambda: certificate_of(address, folder) != before)
    assert classify_over_tls(address, folder, "client") == 7
