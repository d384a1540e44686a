"""Options of the grpcio transport, each of which stops something that was seen to do harm without it.

gRPC ignores a name it does not know without a word, so that
`tests/robustness/test_transport.py` shows of every one that it acts.
"""

from __future__ import annotations

from service.setting_checks import AUTO
from service.settings import Settings

# What is taken where the settings leave it to us.
MAX_CONNECTIONS = 1000
CONNECTION_AGE_S = 120.0
CONNECTION_GRACE_S = 600.0


def max_connections(settings: Settings) -> int:
    """Of gRPC and of HTTP each, as it is asked for or left to us."""
    asked = settings.max_connections
    return MAX_CONNECTIONS if asked == AUTO else asked


def grpcio_options(settings: Settings, *, shared: bool = False) -> list[tuple[str, int]]:
    """Name and value of every option that is not gRPC's default; times in milliseconds, sizes in bytes.

    Args:
        settings: Of the server.
        shared: Whether it is one of several workers, which share a port.
    """
    age, grace = settings.connection_age_s, settings.connection_grace_s
    return [
        # By default a second server on the same port would silently share the calls.
        ("grpc.so_reuseport", int(shared)),
        # A backstop: below it, we refuse with an error that names the setting. It is also where unpacking stops.
        ("grpc.max_receive_message_length", settings.max_message_bytes * 5 // 4),
        # Rapid reset (CVE-2023-44487) makes most calls of others fail without a limit. The limit alone makes honest
        # ones fail: streams that are over and not yet freed count, up to the second number.
        ("grpc.max_concurrent_streams", 100),
        ("grpc.http2.max_deallocating_streams", 200),
        # Otherwise windows grow, and with them what callers can have us hold.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_allowed_incoming_connections", max_connections(settings)),
        # Whoever connects and says nothing, or too little.
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.http2.settings_timeout", 10_000),
        # Whoever is gone without having said so. grpc.keepalive_timeout_ms has no effect, this ping_timeout has.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.ping_timeout_ms", 10_000),
        # Whoever asks too often whether we are here. Clients may every 10 s.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_connection_idle_ms", 300_000),
        # Has clients connect anew, and so find servers that are new. Calls in progress go on until the grace is over.
        ("grpc.max_connection_age_ms", round((CONNECTION_AGE_S if age == AUTO else age) * 1000)),
        ("grpc.max_connection_age_grace_ms", round((CONNECTION_GRACE_S if grace == AUTO else grace) * 1000)),
    ]
