"""Bodies of requests: how long they may take to arrive, and how much of them may be here at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator

from aiohttp import web

from service.errors import InvalidRequest, QueueFull

# Seconds in which the body of a request must arrive; aiohttp waits for ever, also where its framing broke meanwhile.
BODY_S = 60.0
# Bodies up to this weigh nothing: so small pictures are answered, however much others send.
LIGHT_BYTES = 1 << 16


class TooSlow(InvalidRequest):
    """The body did not arrive in time; HTTP has a status of its own for that."""


class TooLarge(InvalidRequest):
    """The body has more bytes than the limit; HTTP has a status of its own for that."""


class Bodies:
    """Reads bodies; large ones count from when they arrive until nobody needs them any more.

    Attributes:
        bytes: Of the large ones that are here.
    """

    def __init__(self, max_bytes: int):
        """Prepare; more than `max_bytes` of all large bodies together are refused."""
        self._max_bytes = max_bytes
        self.bytes = 0

    @contextlib.asynccontextmanager
    async def read(
        self, request: web.Request, most: int, too_large: str, part: AsyncIterable[bytes] | None = None
    ) -> AsyncIterator[bytes]:
        """The body of a request, as long as the context lasts.

        Args:
            request: Of which nothing has been read.
            most: Bytes that are read.
            too_large: What is said where there are more.
            part: What is wanted of the body; None for all of it.

        Raises:
            TooLarge: There are more than `most` bytes.
            TooSlow: They do not arrive within `BODY_S`.
            QueueFull: Beside the bodies of others there is no room for them.
        """
        # What is only announced takes no room from others, but is refused before it comes.
        self._check(min(request.content_length or 0, most), 0)
        data = bytearray()
        counted = 0
        try:
            async with _in_time():
                async for chunk in part or request.content.iter_any():
                    data += chunk
                    if len(data) > most:
                        raise TooLarge(too_large)
                    self._check(len(data), counted)
                    if len(data) > LIGHT_BYTES:
                        self.bytes += len(data) - counted
                        counted = len(data)
            body = bytes(data)
            # Or it would be here twice.
            data.clear()
            yield body
        finally:
            self.bytes -= counted

    def _check(self, size: int, counted: int) -> None:
        """Refuse a body of this size, of which so much is counted already, if there is no room for the rest."""
        more = size - counted
        if size > LIGHT_BYTES and self.bytes + more > self._max_bytes:
            raise QueueFull.of_bytes(self.bytes, more, self._max_bytes)


@contextlib.asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(BODY_S):
            yield
    except TimeoutError:
        raise TooSlow(f"the body of the request did not arrive within {BODY_S:g} s") from None
