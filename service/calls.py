"""What gRPC calls have in common: a deadline, and streams that are answered in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from service.arrivals import let_arrive
from service.errors import NotReady

if TYPE_CHECKING:
    import grpc

    # Generic in the stubs only.
    Context = grpc.aio.ServicerContext[Any, Any]

Request = TypeVar("Request")
Response = TypeVar("Response")

# Requests of a stream that are answered together, at most.
MOST_TOGETHER = 32


def deadline_of(context: Context) -> float | None:
    """The call's deadline on the monotonic clock; None when it has none."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


async def answer_in_order(
    requests: AsyncIterator[Request],
    answer: Callable[[Sequence[Request]], Coroutine[Any, Any, Sequence[Response]]],
    write: Callable[[Response], Awaitable[None]],
    *,
    is_small: Callable[[Request], bool],
    window: int,
    draining: asyncio.Event,
) -> None:
    """Write the answer to every request, in the order of the requests.

    Args:
        requests: What arrives.
        answer: Makes the answers to some requests; runs for several groups of them at once.
        write: Sends an answer.
        is_small: Whether a request may be answered together with its neighbours: what is large would hold them up.
        window: Requests that are worked on at the same time.
        draining: Once set, what was received is answered and the stream ends.

    Raises:
        NotReady: `draining` cut the stream short.
    """
    arrivals: deque[Request] = deque()
    arrived, has_ended = asyncio.Event(), False
    answers: asyncio.Queue[asyncio.Task[Sequence[Response]] | None] = asyncio.Queue()
    # Makes a caller who sends faster than we answer wait.
    room = asyncio.Semaphore(window)

    async def receive() -> None:
        nonlocal has_ended
        incoming = aiter(requests)
        try:
            # First the room, then the request: what was received is answered, also when draining cuts in.
            while await room.acquire() and (request := await anext(incoming, None)) is not None:
                arrivals.append(request)
                arrived.set()
        finally:
            has_ended = True
            arrived.set()

    async def begin() -> None:
        try:
            while not has_ended or arrivals:
                await arrived.wait()
                await let_arrive(lambda: len(arrivals), MOST_TOGETHER)
                while arrivals:
                    answers.put_nowait(tasks.create_task(answer(_next_group(arrivals, is_small))))
                if not has_ended:
                    arrived.clear()
        finally:
            answers.put_nowait(None)

    async def stop_receiving_when_draining() -> None:
        await draining.wait()
        receiving.cancel()

    async with asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(receive())
        tasks.create_task(begin())
        watching = tasks.create_task(stop_receiving_when_draining())
        while task := await answers.get():
            for response in await task:
                await write(response)
                room.release()
        watching.cancel()
    if receiving.cancelled():
        raise NotReady("the server is shutting down; what it received is answered, another one may do the rest")


def _next_group(arrivals: deque[Request], is_small: Callable[[Request], bool]) -> list[Request]:
    """The first request, and those after it that are small, if it is."""
    group = [arrivals.popleft()]
    if is_small(group[0]):
        while arrivals and len(group) < MOST_TOGETHER and is_small(arrivals[0]):
            group.append(arrivals.popleft())
    return group
