"""How a client reaches a server: what the server asks for, deadlines, retries and balancing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a server wants of its callers; by default nothing, over plaintext.

    Attributes:
        tls: Speak TLS; any of the certificates below says so, too.
        ca: PEM certificates of the authorities to believe about the server; None for gRPC's own list.
        certificate: PEM chain that says who the caller is, for a server that wants to know.
        key: PEM key that belongs to it.
        token: Sent with every call; over plaintext everyone on the way can read it.
    """

    tls: bool = False
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key go together; only one of them is given")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ValueError("the token is empty, or holds characters that no header can carry")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def channel(self, address: str, options: list[tuple[str, Any]]) -> grpc.Channel:
        """A channel for blocking calls; it connects when first used."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.insecure_channel(address, options)
        return grpc.secure_channel(address, credentials, options)

    def aio_channel(self, address: str, options: list[tuple[str, Any]]) -> grpc.aio.Channel:
        """A channel for asyncio's calls; it connects when first used."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(address, options)
        return grpc.aio.secure_channel(address, credentials, options)

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if not (self.tls or self.ca or self.certificate):
            return None
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


PLAINTEXT = Access()


def channel_options(timeout_s: float, max_attempts: int) -> list[tuple[str, Any]]:
    """Deadlines, retries and balancing as a gRPC service config (grpc.service_config.ServiceConfig).

    Args:
        timeout_s: Deadline of each call but a stream, in seconds.
        max_attempts: Tries of a call that ends with UNAVAILABLE, 1 to 5; 1 never retries.
    """
    # Classifying changes nothing, so that trying again is always safe.
    retry: dict[str, Any] = {
        "retryPolicy": {
            "maxAttempts": max_attempts,
            "initialBackoff": "0.2s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
    }
    service = "digits.v1.DigitClassifier"
    methods: list[dict[str, Any]] = [
        {"name": [{"service": service}], "timeout": f"{timeout_s:.9f}s"},
        # As long as the caller has images; `_StreamProgress` watches over its answers.
        {"name": [{"service": service, "method": "ClassifyStream"}]},
    ]
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        # Whoever drains says so by its health, and gets no more calls.
        "healthCheckConfig": {"serviceName": service},
        "methodConfig": [method | retry for method in methods] if max_attempts > 1 else methods,
        # After fifty failures, retries stop until ten calls have succeeded for each further one (gRFC A6).
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
    return [
        ("grpc.service_config", json.dumps(config)),
        # gRPC's own second, then more, would let every attempt find the same broken connection.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
    ]
