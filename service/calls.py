"""What gRPC calls have in common: a deadline, and streams that are answered in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from service.errors import NotReady

if TYPE_CHECKING:
    import grpc

    # Generic in the stubs only.
    Context = grpc.aio.ServicerContext[Any, Any]

Request = TypeVar("Request")
Response = TypeVar("Response")


def deadline_of(context: Context) -> float | None:
    """The call's deadline on the monotonic clock; None when it has none."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


async def answer_in_order(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Coroutine[Any, Any, Response]],
    write: Callable[[Response], Awaitable[None]],
    *,
    window: int,
    draining: asyncio.Event,
) -> None:
    """Write the answer to every request, in the order of the requests.

    Args:
        requests: What arrives.
        answer: Makes the answer to one request; runs for several at once.
        write: Sends an answer.
        window: Requests that are worked on at the same time.
        draining: Once set, what was received is answered and the stream ends.

    Raises:
        NotReady: `draining` cut the stream short.
    """
    answers: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
    # Makes a caller who sends faster than we answer wait.
    room = asyncio.Semaphore(window)

    async def receive() -> None:
        incoming = aiter(requests)
        try:
            # First the room, then the request: what was received is answered, also when draining cuts in.
            while await room.acquire() and (request := await anext(incoming, None)) is not None:
                answers.put_nowait(tasks.create_task(answer(request)))
        finally:
            answers.put_nowait(None)

    async def stop_receiving_when_draining() -> None:
        await draining.wait()
        receiving.cancel()

    async with asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(receive())
        watching = tasks.create_task(stop_receiving_when_draining())
        while task := await answers.get():
            await write(await task)
            room.release()
        watching.cancel()
    if receiving.cancelled():
        raise NotReady("the server is shutting down; what it received is answered, another one may do the rest")
