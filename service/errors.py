"""What can go wrong, and the gRPC status each fault is answered with.

    DigitserveError
    ├── CallError                  a call is answered with a status
    │   ├── InvalidImage           INVALID_ARGUMENT
    │   ├── InvalidRequest         INVALID_ARGUMENT
    │   ├── NotFound               NOT_FOUND
    │   ├── QueueFull              RESOURCE_EXHAUSTED
    │   ├── DeadlinePassed         DEADLINE_EXCEEDED
    │   ├── NotReady               UNAVAILABLE
    │   └── NotImplementedYet      UNIMPLEMENTED
    ├── WorkersLost                the server ends by itself; exit code 4
    └── StartError                 the server does not start; exit code 3
        ├── InvalidSetting         exit code 2
        ├── RuntimeMissing
        ├── ModelUnusable
        ├── DeviceMissing
        ├── PortUnavailable
        └── SecretUnusable

Anything else is a fault of ours and is answered with INTERNAL and an opaque
id. This module imports nothing of ours and no gRPC: a status is only a name.
"""

from __future__ import annotations

import logging
import secrets
from typing import TypeVar

log = logging.getLogger(__name__)


E = TypeVar("E", bound=BaseException)


class DigitserveError(Exception):
    """Any fault with a text that may be shown to whoever caused it.

    Attributes:
        exit_code: What a process ends with because of it.
    """

    exit_code = 1


class CallError(DigitserveError):
    """A call that is answered with a status; the text goes to the caller.

    Attributes:
        status: Name of the gRPC status code.
    """

    status: str


class InvalidImage(CallError):
    """The bytes are no image the server can read, or one beyond its limits."""

    status = "INVALID_ARGUMENT"


class InvalidRequest(CallError):
    """The request, rather than an image in it, is not acceptable."""

    status = "INVALID_ARGUMENT"


class NotFound(CallError):
    """The server has no such model, or no such version of it."""

    status = "NOT_FOUND"


class QueueFull(CallError):
    """More images are waiting than the server is willing to hold."""

    status = "RESOURCE_EXHAUSTED"

    @classmethod
    def of_bytes(cls, held: int, more: int, most: int) -> QueueFull:
        """Requests of so many bytes are in progress, and one of so many more would be above the most."""
        return cls(
            f"requests of {held} bytes are in progress and {more} more would exceed the limit of {most} "
            "(--max-queue-bytes); try again a little later"
        )


class DeadlinePassed(CallError):
    """The caller's deadline passed before the model ran."""

    status = "DEADLINE_EXCEEDED"


class NotReady(CallError):
    """The server is starting or going away."""

    status = "UNAVAILABLE"


class NotImplementedYet(CallError):
    """The contract names this call or feature; this release, or the way it was started, does not have it."""

    status = "UNIMPLEMENTED"


class WorkersLost(DigitserveError):
    """Every worker ends again and again; whoever started the server shall know, and start another."""

    exit_code = 4


class StartError(DigitserveError):
    """The server cannot start; the text says what to do about it.

    Attributes:
        for_callers: The text, for whoever asked over the network for a model to be loaded: without the details.
    """

    exit_code = 3

    def __init__(self, text: str, details: str = ""):
        """Say it.

        Args:
            text: In our words.
            details: In those of ONNX Runtime or CUDA, which name files and functions.
        """
        super().__init__(f"{text}: {details}" if details else text)
        self.for_callers, self.details = text, details


class InvalidSetting(StartError):
    """A flag or environment variable has an unusable value."""

    exit_code = 2


class RuntimeMissing(StartError):
    """Neither the `cpu` nor the `gpu` extra is installed."""


class ModelUnusable(StartError):
    """There is no model file, or it is not one this server can serve."""


class DeviceMissing(StartError):
    """ONNX Runtime does not offer the device that was asked for."""


class PortUnavailable(StartError):
    """A port, or the socket behind it, cannot be listened on."""


class SecretUnusable(StartError):
    """A certificate, a key or a list of tokens cannot be read or used."""


def log_fault(error: BaseException) -> str:
    """Log a fault of ours under an opaque id; returns the text for the caller, who learns the id and nothing else."""
    fault = secrets.token_hex(8)
    log.error("fault %s", fault, exc_info=error)
    return f"the server failed on this call; its log knows more under id {fault}"


def without_frames(error: E) -> E:
    """The error without where it came from, once that is not needed any more.

    The frames an error has passed hold the request, and often the error
    itself: all of it would stay in memory until Python looks for such circles.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error
