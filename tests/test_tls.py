"""TLS of all three ports: renewed certificates (S4), and callers who are not let in (S5), by real servers."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.client import Access, ClassifyError, Client
from service.errors import SecretUnusable
from service.security import Certificates
from tests.certificates import certificate_of, context_of, make_certificates, renew, sign, sign_expired
from tests.server_process import ServerProcess, wait_until
from tests.test_command import run

BLANK = np.zeros((28, 28), np.uint8)


def flags(folder: Path) -> list[str]:
    """Mutual TLS with the certificates of a folder."""
    files = (("--tls-cert-file", "tls.crt"), ("--tls-key-file", "tls.key"), ("--tls-client-ca-file", "ca.crt"))
    return [text for flag, name in files for text in (flag, str(folder / name))]


def shown_by(folder: Path, client: str | None) -> Access:
    """What a caller with this certificate shows."""
    certificate, key = ((folder / f"{client}.{end}").read_bytes() if client else None for end in ("crt", "key"))
    return Access(ca=(folder / "ca.crt").read_bytes(), certificate=certificate, key=key)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_certificates(tmp_path)
    return tmp_path


@pytest.fixture
def mutual_tls(folder: Path) -> Iterator[ServerProcess]:
    with ServerProcess(*flags(folder), tls=context_of(folder, "client")) as process:
        yield process


def test_s4_a_renewed_certificate_is_shown_and_open_connections_go_on(mutual_tls: ServerProcess, folder: Path) -> None:
    """On gRPC and both HTTP ports; not one call on the old connection fails."""
    ports = [port_of(each) for each in (mutual_tls.grpc_address, mutual_tls.http_url, mutual_tls.ops_url)]
    addresses = [f"localhost:{port}" for port in ports] + [f"127.0.0.1:{port}" for port in ports]
    answered, renewed = 0, threading.Event()

    def ask() -> None:
        nonlocal answered
        while not renewed.is_set():
            client.classify(BLANK)
            answered += 1

    with Client(f"localhost:{ports[0]}", access=shown_by(folder, "client"), max_attempts=1) as client:
        client.classify(BLANK)
        asking = threading.Thread(target=ask)
        asking.start()
        before = [certificate_of(address, folder) for address in addresses]
        assert len(set(before)) == 1
        renew(folder)
        for address in addresses:
            wait_until(lambda address=address: certificate_of(address, folder) != before[0])  # type: ignore[misc]
        after = answered
        wait_until(lambda: answered > after or not asking.is_alive())
        renewed.set()
        asking.join()
    assert len({certificate_of(address, folder) for address in addresses}) == 1
    assert mutual_tls.metric("grpc_server_handled_total", grpc_code="OK") == answered + 1


def test_s4_what_the_files_hold_meanwhile_is_logged_once_and_not_taken(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    before = certificates.files.current
    (folder / "new").mkdir()
    sign(folder, "tls", folder / "new")
    # Without the key that belongs to it, the last is not yet good.
    for content in (b"", b"-----BEGIN CERTIFICATE-----", (folder / "new" / "tls.crt").read_bytes()):
        (folder / "..first" / "tls.crt").write_bytes(content)
        certificates.files.look()
        certificates.files.look()
    (folder / "..data").unlink()
    certificates.files.look()
    assert certificates.files.current is before
    assert [record.message.split(":")[0] for record in caplog.records] == ["the TLS certificate stays as it was"] * 2
    (folder / "..data").symlink_to("..first")
    shutil.copy(folder / "new" / "tls.key", folder / "..first" / "tls.key")
    certificates.files.look()
    assert certificates.files.current is not before


def curve(name: str) -> list[str]:
    return ["ec", "-pkeyopt", f"ec_paramgen_curve:{name}"]


@pytest.mark.parametrize("kind", [["rsa:2048"], curve("secp384r1")])
def test_keys_of_every_kind_that_is_taken_are_of_use_to_grpc(folder: Path, kind: list[str]) -> None:
    sign(folder, "tls", folder, kind)
    with ServerProcess(*flags(folder), tls=context_of(folder, "client")) as process:
        address = process.grpc_address.replace("127.0.0.1", "localhost")
        with Client(address, access=shown_by(folder, "client")) as client:
            assert client.classify(BLANK).rejection_reason == "blank"
        assert process.metric("digitserve_ready") == 1


@pytest.mark.parametrize(
    "kind", [curve("secp521r1"), curve("secp256k1"), ["ed25519"], ["ed448"], ["rsa-pss"]], ids=lambda kind: kind[-1]
)
def test_s4_keys_of_other_kinds_are_refused_at_the_start_and_when_renewed(
    folder: Path, kind: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Python's TLS takes some of them, gRPC's or its callers' do not."""
    files = (folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    certificates = Certificates(*files)
    before = certificates.files.current
    sign(folder, "tls", folder, kind)
    certificates.files.look()
    assert certificates.files.current is before
    text = f"{files[0]} must have a PEM certificate with an RSA, P-256 or P-384 key: gRPC knows no other"
    assert caplog.messages == [f"the TLS certificate stays as it was: {text}"]
    with pytest.raises(SecretUnusable, match=text):
        Certificates(*files)


@pytest.mark.parametrize("caller", ["nobody", "stranger", "expired", "plaintext"])
def test_s5_callers_whom_no_authority_vouches_for_reach_no_handler(
    mutual_tls: ServerProcess, folder: Path, caller: str
) -> None:
    sign_expired(folder, "expired", folder)
    access = {"nobody": shown_by(folder, None), "plaintext": Access()}.get(caller) or shown_by(folder, caller)
    address = mutual_tls.grpc_address.replace("127.0.0.1", "localhost")
    with Client(address, timeout_s=2, max_attempts=1, access=access) as client:
        with pytest.raises(ClassifyError) as caught:
            client.classify(BLANK)
        assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    request = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"
    host, port = "127.0.0.1", port_of(mutual_tls.http_url)
    with socket.create_connection((host, port), timeout=10) as plain:
        received = b""
        try:
            if caller == "plaintext":
                plain.sendall(request)
                received = plain.recv(1000)
            else:
                context = context_of(folder, None if caller == "nobody" else caller)
                with context.wrap_socket(plain, server_hostname=host) as tls:
                    tls.sendall(request)
                    received = tls.recv(1000)
        except (ssl.SSLError, ConnectionError):
            pass
    assert b"HTTP/1.1 2" not in received
    assert mutual_tls.metric("grpc_server_started_total") == 0
    assert mutual_tls.metric("digitserve_http_requests_total") == 0
    with Client(address, access=shown_by(folder, "client")) as client:
        assert client.model().version == "1"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_s5_tls_1_1_is_refused(mutual_tls: ServerProcess, folder: Path) -> None:
    for url in (mutual_tls.grpc_address, mutual_tls.http_url, mutual_tls.ops_url):
        context = context_of(folder, "client")
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", port_of(url)), timeout=10) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(plain, server_hostname="localhost")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(("127.0.0.1", port_of(url)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            assert tls.version() == "TLSv1.2"


def test_s5_probes_of_the_operations_port_need_no_certificate_and_the_metrics_do(
    mutual_tls: ServerProcess, folder: Path
) -> None:
    assert mutual_tls.metric("digitserve_ready") == 1
    mutual_tls._tls = context_of(folder, None)
    assert mutual_tls.get(f"{mutual_tls.ops_url}/readyz") == mutual_tls.get(f"{mutual_tls.ops_url}/livez") == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        mutual_tls.get(f"{mutual_tls.ops_url}/metrics")


def test_the_commands_speak_tls(mutual_tls: ServerProcess, folder: Path) -> None:
    address = mutual_tls.grpc_address.replace("127.0.0.1", "localhost")
    shown: list[str | Path] = ["--tls-ca-file", folder / "ca.crt", "--client-cert-file", folder / "client.crt"]
    for command in ("healthcheck", "info"):
        done = run(command, "--address", address, *shown, "--client-key-file", folder / "client.key")
        assert (done.returncode, done.stderr) == (0, "")
    done = run("info", "--address", address, *shown)
    assert (done.returncode, done.stderr) == (
        1,
        "digitserve: a certificate and its key go together; only one of them is given\n",
    )
    done = run("info", "--address", address, "--tls-ca-file", folder / "none.crt")
    assert done.stderr == f"digitserve: cannot read {folder}/none.crt: No such file or directory\n"


def test_without_authorities_of_callers_everyone_is_answered_over_tls(folder: Path) -> None:
    pair = ["--tls-cert-file", str(folder / "tls.crt"), "--tls-key-file", str(folder / "tls.key")]
    with ServerProcess(*pair, tls=context_of(folder, None)) as process:
        with Client(process.grpc_address, access=shown_by(folder, None)) as client:
            assert client.classify(BLANK).rejection_reason == "blank"
        assert '"ready": true' in process.get(f"{process.http_url}/v2/health/ready")
        assert process.metric("digitserve_ready") == 1


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        ({"tls.crt": None}, "cannot read {}/tls.crt: No such file or directory"),
        ({"tls.key": "client.key"}, "{}/tls.crt and {}/tls.key are no PEM certificate and the PEM key"),
        ({"tls.crt": "client.key"}, "{}/tls.crt and {}/tls.key are no PEM certificate and the PEM key"),
        ({"ca.crt": "client.key"}, "{}/ca.crt holds no PEM certificate of an authority"),
    ],
)
def test_files_that_cannot_be_used_are_named_at_the_start(
    folder: Path, damage: dict[str, str | None], text: str
) -> None:
    for name, other in damage.items():
        (folder / name).unlink()
        if other:
            shutil.copy(folder / other, folder / name)
    with pytest.raises(SecretUnusable) as caught:
        Certificates(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    assert text.format(folder, folder) in str(caught.value)
