"""The flags of the commands that ask a server: where it is, how long to wait, what it wants of its callers."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from service.errors import DigitserveError

if TYPE_CHECKING:
    from service.client.client_channel import Access


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where the server is, how long to wait, and what it wants of its callers."""
    parser.add_argument(
        "--address",
        default=os.environ.get("DIGITSERVE_ADDRESS", f"127.0.0.1:{os.environ.get('DIGITSERVE_GRPC_PORT', 8001)}"),
        help="host:port of the server (default: %(default)s; DIGITSERVE_ADDRESS)",
    )
    parser.add_argument("--timeout-s", type=_seconds, default=10.0, help="seconds to wait for an answer (default: 10)")
    group = parser.add_argument_group("access", "what the server wants of its callers")
    group.add_argument("--tls", action="store_true", help="speak TLS; a certificate below says so, too")
    for flag, variable, help in (
        ("--tls-ca-file", "DIGITSERVE_TLS_CA_FILE", "authorities to believe about the server, PEM"),
        ("--client-cert-file", "DIGITSERVE_CLIENT_CERT_FILE", "certificate to show to the server, PEM"),
        ("--client-key-file", "DIGITSERVE_CLIENT_KEY_FILE", "the key that belongs to it, PEM"),
        ("--token-file", "DIGITSERVE_TOKEN_FILE", "the first line is the token to send with every call"),
    ):
        default = os.environ.get(variable)
        group.add_argument(flag, type=Path, metavar="FILE", default=default, help=f"{help} ({variable})")


def access(args: argparse.Namespace) -> Access:
    """What the flags say about TLS, certificates and token.

    Raises:
        DigitserveError: A file cannot be read, or does not hold what it should.
    """
    from service.client.client_channel import Access

    token = content(args.token_file) if args.token_file else None
    try:
        return Access(
            tls=args.tls,
            ca=content(args.tls_ca_file) if args.tls_ca_file else None,
            certificate=content(args.client_cert_file) if args.client_cert_file else None,
            key=content(args.client_key_file) if args.client_key_file else None,
            token=None if token is None else (token.decode("latin-1").splitlines() or [""])[0].strip(),
        )
    except ValueError as error:
        raise DigitserveError(str(error)) from None


def content(path: Path) -> bytes:
    """What is in a file.

    Raises:
        DigitserveError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DigitserveError(f"cannot read {path}: {error.strerror}") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.001 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 0.001 and 86400")
    return seconds
