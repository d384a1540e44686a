"""Which calls are answered: those with a token, and health checks; any other is refused, whatever it asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc

from service.observing.request_log import RequestLog
from service.security import Certificates, Tokens

if TYPE_CHECKING:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]

HEALTH_CALLS = "/grpc.health.v1.Health/"


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses before anything of a call is read; a method that is added tomorrow is guarded without a word about it."""

    def __init__(self, tokens: Tokens, log: RequestLog | None, turned_away: Callable[[], None]):
        """Prepare.

        Args:
            tokens: That callers may show.
            log: Gets a line for the refusals it picks.
            turned_away: Called for everyone who shows none of them.
        """
        self._tokens = tokens
        self._log = log
        self._turned_away = turned_away

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Go on for callers with a token, and for health checks."""
        if handler_call_details.method.startswith(HEALTH_CALLS) or any(
            self._tokens.admit(value)
            for key, value in handler_call_details.invocation_metadata or ()
            if key == "authorization"
        ):
            return await continuation(handler_call_details)
        self._turned_away()
        # A stream is refused without waiting for its first message, and every call can be taken as one.
        return grpc.stream_stream_rpc_method_handler(self._refusing(handler_call_details))

    def _refusing(self, details: grpc.HandlerCallDetails) -> Callable[[object, Context], Awaitable[None]]:
        async def refuse(_: object, context: Context) -> None:
            if self._log is not None and self._log.picks():
                headers = details.invocation_metadata or ()
                self._log.answered(details.method, "UNAUTHENTICATED", 0.0, peer=context.peer(), headers=headers)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, Tokens.WANTED)

        return refuse


def credentials(certificates: Certificates | None) -> grpc.ServerCredentials | None:
    """TLS of a gRPC port, of which every handshake takes the newest files; None for plaintext."""
    if certificates is None:
        return None

    def configuration() -> grpc.ServerCertificateConfiguration:
        pem = certificates.files.current
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.client_ca)

    shown = certificates.files.current

    def newest() -> grpc.ServerCertificateConfiguration | None:
        # Called for each handshake, in a thread of gRPC's core: None says that nothing changed.
        nonlocal shown
        if shown is certificates.files.current:
            return None
        shown = certificates.files.current
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        newest,  # type: ignore[arg-type]  # the stubs do not know of None
        require_client_authentication=certificates.callers_show_theirs,
    )
