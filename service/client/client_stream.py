"""What the client has to watch while it streams."""

from __future__ import annotations

from typing import Any

from protos import digits_pb2
from service.client.client_messages import ClassifyError, Result


class StreamProgress:
    """How far a stream has come: whether the server is silent, and what the caller's iterator raised."""

    def __init__(self, timeout_s: float):
        """Begin; an answer may take `timeout_s` seconds."""
        self.failure: BaseException | None = None
        self.silent = False
        self.awaiting = True
        self._timeout_s = timeout_s
        self._sent = self._answered = 0
        self._was_waiting_at: int | None = None

    def sending(self, request: digits_pb2.ClassifyStreamRequest) -> digits_pb2.ClassifyStreamRequest:
        """Note that a request goes out."""
        self._sent += 1
        return request

    def answered(self, result: Result) -> Result:
        """Note that an answer came."""
        self._answered += 1
        self.awaiting = False
        return result

    def cancel_if_silent(self, call: Any) -> None:
        """To be called every `timeout_s`: cancel if an answer was awaited all the while and none came.

        A caller who sends slowly, or is busy with the last answer, may take its time.
        """
        is_waiting = self.awaiting and self._sent > self._answered
        if is_waiting and self._was_waiting_at == self._answered:
            self.silent = True
            call.cancel()
        self._was_waiting_at = self._answered if is_waiting else None

    def silence(self) -> ClassifyError:
        """What to raise once it is silent."""
        return ClassifyError("DEADLINE_EXCEEDED", f"no answer came for {self._timeout_s:g} s")
