"""Certificates and tokens, from files that are followed: what is renewed on disk counts a moment later.

A file that cannot be used any more changes nothing but the log: the last one
that could stays in force. Nothing here ever shows a key or a token.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from service.errors import SecretUnusable

log = logging.getLogger(__name__)

FOLLOW_S = 1.0
# Sixteen characters drawn at random cannot be guessed over a network.
MIN_TOKEN_CHARACTERS = 16
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
# How a certificate (DER) names the kind of its key, of those that gRPC's TLS takes; Python's takes more.
RSA = bytes.fromhex("300d06092a864886f70d0101010500")
P_256 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
P_384 = bytes.fromhex("301006072a8648ce3d020106052b81040022")

Made = TypeVar("Made")


class Followed(Generic[Made]):
    """What is made of some files, made anew when they change.

    Attributes:
        current: The newest that could be made.
    """

    def __init__(self, what: str, paths: Sequence[Path], make: Callable[[], Made]):
        """Make it for the first time.

        Args:
            what: What the files hold, for the log.
            paths: The files; their content tells whether they changed.
            make: Makes it of the files.

        Raises:
            SecretUnusable: It cannot be made.
        """
        self._what = what
        self._paths = paths
        self._make = make
        self._problem = ""
        self._seen = self._read()
        self.current = make()

    def look(self) -> None:
        """Take up files that changed; blocks for as long as the disk takes."""
        try:
            content = self._read()
            if content == self._seen:
                return
            made = self._make()
            # Files that change under our hands are looked at again, whole, the next time.
            if self._read() != content:
                return
        except SecretUnusable as error:
            if str(error) != self._problem:
                log.warning("%s stays as it was: %s", self._what, error)
            self._problem = str(error)
            return
        self._seen, self.current, self._problem = content, made, ""
        log.info("%s was renewed", self._what)

    def _read(self) -> list[bytes]:
        """Digests of the files: what they hold is kept no longer than needed."""
        return [hashlib.sha256(read(path)).digest() for path in self._paths]


def read(path: Path) -> bytes:
    """What is in a file.

    Raises:
        SecretUnusable: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SecretUnusable(f"cannot read {path}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Pem:
    """What the files of a `Certificates` hold, known to belong together."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    context: ssl.SSLContext


class Certificates:
    """The server's certificate, its key, and the authorities that its callers' certificates must come from.

    Attributes:
        callers_show_theirs: Whether callers need a certificate, too.
        files: To be followed.
    """

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None):
        """Read them.

        Args:
            cert_file: PEM chain of the server.
            key_file: PEM key that belongs to it.
            client_ca_file: PEM certificates of the callers' authorities; None lets everyone in.

        Raises:
            SecretUnusable: A file cannot be read, they do not belong together, or gRPC cannot use the key.
        """
        self._cert_file, self._key_file, self._client_ca_file = cert_file, key_file, client_ca_file
        self.callers_show_theirs = client_ca_file is not None
        paths = [path for path in (cert_file, key_file, client_ca_file) if path]
        self.files = Followed("the TLS certificate", paths, self._make)

    def _make(self) -> Pem:
        client_ca = None if self._client_ca_file is None else read(self._client_ca_file)
        # gRPC would find out about a broken pair only in the middle of a handshake; Python says so at once.
        made = Pem(read(self._cert_file), read(self._key_file), client_ca, self._context())
        first = CERTIFICATE.search(made.certificate)
        if not first or not any(kind in base64.b64decode(first[1]) for kind in (RSA, P_256, P_384)):
            raise SecretUnusable(
                f"{self._cert_file} must have a PEM certificate with an RSA, P-256 or P-384 key: gRPC knows no other"
            )
        return made

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A resumed session would be let in by authorities that were believed when it began.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_cert_chain(self._cert_file, self._key_file, password="")
        except (ssl.SSLError, OSError, ValueError):
            raise SecretUnusable(
                f"{self._cert_file} and {self._key_file} are no PEM certificate and the PEM key, "
                "without a password, that belongs to it"
            ) from None
        if self._client_ca_file is not None:
            try:
                context.load_verify_locations(self._client_ca_file)
            except (ssl.SSLError, OSError):
                raise SecretUnusable(f"{self._client_ca_file} holds no PEM certificate of an authority") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def context(self, *, callers_must_show_theirs: bool) -> ssl.SSLContext:
        """For an HTTP port; every handshake takes the newest files.

        Args:
            callers_must_show_theirs: Refuse callers without a certificate in the handshake, if callers
                need one at all; otherwise one that is shown is verified all the same.
        """
        context = self._context()
        if self.callers_show_theirs and not callers_must_show_theirs:
            context.verify_mode = ssl.CERT_OPTIONAL

        def newest(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = self.files.current.context

        context.sni_callback = newest
        return context


class Tokens:
    """The tokens that callers may show, one a line of a file; empty lines and those that begin with # do not count.

    Attributes:
        files: To be followed.
    """

    WANTED = "a token is needed that this server knows: send 'authorization: Bearer TOKEN'"

    def __init__(self, file: Path):
        """Read them.

        Raises:
            SecretUnusable: The file cannot be read, or a token in it cannot be used.
        """
        self._file = file
        self.files = Followed("the list of tokens", [file], self._make)
        if not self.files.current:
            raise SecretUnusable(f"{file} holds no token; write one a line, such as `openssl rand -hex 32` makes")

    def _make(self) -> list[bytes]:
        digests = []
        for number, line in enumerate(read(self._file).split(b"\n"), 1):
            token = line.strip()
            if not token or token.startswith(b"#"):
                continue
            if len(token) < MIN_TOKEN_CHARACTERS or not all(0x21 <= byte <= 0x7E for byte in token):
                raise SecretUnusable(
                    f"the token in line {number} of {self._file} must be {MIN_TOKEN_CHARACTERS} or more visible "
                    "ASCII characters without a space"
                )
            digests.append(hashlib.sha256(token).digest())
        return digests

    def admit(self, authorization: str | bytes) -> bool:
        """Whether the value of an `authorization` header carries one of them.

        It takes as long for a token that is nearly right as for any other.
        """
        value = authorization.encode("utf-8", "surrogateescape") if isinstance(authorization, str) else authorization
        scheme, _, token = value.partition(b" ")
        shown = hashlib.sha256(token).digest()
        # All of them, always.
        found = [hmac.compare_digest(shown, known) for known in self.files.current]
        return any(found) and scheme.lower() == b"bearer"


@dataclass(frozen=True, slots=True)
class Security:
    """What a server shows its callers, and wants of them; each None where it does without.

    Attributes:
        certificates: Without them, ports speak plaintext.
        tokens: Without them, everyone is answered.
    """

    certificates: Certificates | None
    tokens: Tokens | None

    @classmethod
    def of(cls, cert_file: str, key_file: str, client_ca_file: str, token_file: str) -> Security:
        """Read files; "" stands for none.

        Raises:
            SecretUnusable: As for `Certificates` and `Tokens`.
        """
        client_ca = Path(client_ca_file) if client_ca_file else None
        return cls(
            Certificates(Path(cert_file), Path(key_file), client_ca) if cert_file else None,
            Tokens(Path(token_file)) if token_file else None,
        )

    @property
    def scheme(self) -> str:
        """Of the HTTP ports' addresses."""
        return "https" if self.certificates else "http"

    def tls(self, *, has_probes: bool) -> ssl.SSLContext | None:
        """For an HTTP port; None for plaintext.

        Probes show no certificate, so that `guard` has to ask for one where they come in.
        """
        return self.certificates.context(callers_must_show_theirs=not has_probes) if self.certificates else None

    async def follow(self, every_s: float = FOLLOW_S) -> None:
        """Look at the files again and again, until cancelled."""
        watched: list[Followed[Any]] = [each.files for each in (self.certificates, self.tokens) if each]
        while watched:
            await asyncio.sleep(every_s)
            for files in watched:
                await asyncio.to_thread(files.look)
