"""Certificates that openssl makes, and what a server shows of them."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.manifests import needs

P256 = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


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


def sign(authority: Path, name: str, folder: Path, kind: Sequence[str] = P256) -> None:
    """Make a certificate of the authority, with a key of some kind: folder/name.crt and folder/name.key."""
    by = ("-CA", authority / "ca.crt", "-CAkey", authority / "ca.key", "-subj", f"/CN={name}")
    names = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl(*by, *names, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt", kind=kind)


def sign_expired(authority: Path, name: str, folder: Path) -> None:
    """Make a certificate of the authority that was good until yesterday."""
    request, key = folder / f"{name}.csr", folder / f"{name}.key"
    made = ("req", "-newkey", *P256, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    by = ("-CA", authority / "ca.crt", "-CAkey", authority / "ca.key", "-CAcreateserial", "-days", "-1")
    for arguments in (made, ("x509", "-req", "-in", request, *by, "-out", folder / f"{name}.crt")):
        subprocess.run([needs("openssl"), *arguments], check=True, capture_output=True)


def renew(folder: Path) -> None:
    """Put a new pair of the server in the place of the one that is there, as Kubernetes does: both in one step."""
    renewed = folder / "..second"
    renewed.mkdir()
    (renewed / "ca.crt").write_bytes((folder / "ca.crt").read_bytes())
    sign(folder, "tls", renewed)
    (folder / "..data_tmp").symlink_to("..second")
    (folder / "..data_tmp").rename(folder / "..data")


def openssl(*arguments: str | Path, kind: Sequence[str] = P256) -> None:
    made = ("req", "-x509", "-newkey", *kind, "-nodes", "-days", "2", *arguments)
    subprocess.run([needs("openssl"), *made], check=True, capture_output=True)


def context_of(folder: Path, client: str | None) -> ssl.SSLContext:
    """What a caller with this certificate speaks TLS with."""
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if client:
        context.load_cert_chain(folder / f"{client}.crt", folder / f"{client}.key")
    return context


def certificate_of(address: str, folder: Path) -> bytes:
    """The certificate that the server shows."""
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port))) as plain,
        context_of(folder, "client").wrap_socket(plain, server_hostname=host) as tls,
    ):
        shown = tls.getpeercert(binary_form=True)
        assert shown is not None
        return shown
