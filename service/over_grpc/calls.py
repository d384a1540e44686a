"""What gRPC calls have in common: a deadline, and streams that are answered in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from service.errors import CallError, DeadlinePassed, NotReady
from service.runs.arrivals import let_arrive

if TYPE_CHECKING:
    # Generic in the stubs only.
    Context = grpc.aio.ServicerContext[Any, Any]

# With a window of 64, a stream holds 8 MiB of what was received, and one message.
WEIGHT_BYTES = 1 << 17
# Of all streams together; beyond it, each has one request at a time.
MOST_BYTES = 64 << 20
MAX_WRITE_S = 10.0
CENTURY_S = 3e9

Request = TypeVar("Request")
Response = TypeVar("Response")

# Requests of a stream that are answered together, at most.
MOST_TOGETHER = 32


def deadline_of(context: Context) -> float | None:
    """The call's deadline on the monotonic clock; None when it has none."""
    remaining = context.time_remaining()
    # Of a call without one, the native transport says centuries.
    return None if remaining is None or remaining > CENTURY_S else time.monotonic() + remaining


def received_bytes(request: Any) -> int:
    """Bytes of a request."""
    return 0 if isinstance(request, CallError) else request.ByteSize()


class Streams:
    """Streams that are answered in order, and what they share."""

    def __init__(self, draining: asyncio.Event, hang_up: Callable[[str], bool], *, max_write_s: float = MAX_WRITE_S):
        """Prepare.

        Args:
            draining: Once set, what was received is answered and the streams end.
            hang_up: Breaks the connection of a caller; False if it cannot.
            max_write_s: What sending one answer may take: whoever reads none holds what we keep for them.
        """
        self._draining = draining
        self._hang_up = hang_up
        self._max_write_s = max_write_s
        self._bytes = 0
        # Streams that wait until others hold less, or until they hold nothing themselves.
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def answer_in_order(
        self,
        requests: AsyncIterator[Request],
        answer: Callable[[Sequence[Request]], Coroutine[Any, Any, Sequence[Response]]],
        context: Context,
        *,
        is_small: Callable[[Request], bool],
        size: Callable[[Request], int] = received_bytes,
        window: int,
    ) -> None:
        """Write the answer to every request, in the order of the requests.

        Args:
            requests: What arrives.
            answer: Makes the answers to some requests; runs for several groups of them at once.
            context: Of the call; sends the answers.
            is_small: Whether a request may be answered together with its neighbours: what is large would hold them up.
            size: Bytes to hold for a request until its answer is sent.
            window: Requests that are worked on at the same time.

        Raises:
            NotReady: `draining` cut the stream short.
            DeadlinePassed: Sending an answer took too long, and the caller could not be hung up on.
        """
        arrivals: deque[Request] = deque()
        arrived, has_ended = asyncio.Event(), False
        answers: asyncio.Queue[asyncio.Task[Sequence[Response]] | None] = asyncio.Queue()
        # Of the requests that are not answered.
        sizes: deque[int] = deque()
        waiting: asyncio.Future[None] | None = None
        writing_since: float | None = None
        # Makes a caller who sends faster than we answer wait.
        room = asyncio.Semaphore(window)

        def weight(bytes_held: int) -> int:
            """How much of the window a request takes: 1, and 1 more for every `WEIGHT_BYTES`."""
            return min(1 + bytes_held // WEIGHT_BYTES, window)

        async def receive() -> None:
            nonlocal has_ended, waiting
            incoming = aiter(requests)
            try:
                # First the room, then the request: what was received is answered, also when draining cuts in.
                while await room.acquire():
                    if sizes and self._bytes > MOST_BYTES:
                        waiting = asyncio.get_running_loop().create_future()
                        self._waiting.append(waiting)
                        await waiting
                    if (request := await anext(incoming, None)) is None:
                        break
                    sizes.append(size(request))
                    self._bytes += sizes[-1]
                    for _ in range(weight(sizes[-1]) - 1):
                        await room.acquire()
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
            await self._draining.wait()
            receiving.cancel()

        async def expect_reading() -> None:
            limit_s = self._max_write_s
            while True:
                await asyncio.sleep(limit_s / 4)
                # What is being written would stay with gRPC for ever if this ended it.
                if (
                    writing_since is not None
                    and time.monotonic() - writing_since >= limit_s
                    and not self._hang_up(context.peer())
                ):
                    raise DeadlinePassed(f"an answer could not be sent for {limit_s:g} s: the caller reads none")

        async with self._letting_go(sizes), asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(receive())
            tasks.create_task(begin())
            watching = tasks.create_task(stop_receiving_when_draining())
            reading = tasks.create_task(expect_reading())
            while task := await answers.get():
                for response in await task:
                    writing_since = time.monotonic()
                    try:
                        await context.write(response)
                    except grpc.aio.InternalError:
                        # Whoever called has left.
                        raise asyncio.CancelledError from None
                    writing_since = None
                    self._bytes -= sizes[0]
                    for _ in range(weight(sizes.popleft())):
                        room.release()
                    self._go_on(None if sizes else waiting)
            watching.cancel()
            reading.cancel()
        if receiving.cancelled():
            raise NotReady("the server is shutting down; what it received is answered, another one may do the rest")

    @contextlib.asynccontextmanager
    async def _letting_go(self, sizes: Sequence[int]) -> AsyncIterator[None]:
        """Count no more, at the end, what was not answered."""
        try:
            yield
        finally:
            self._bytes -= sum(sizes)
            self._go_on(None)

    def _go_on(self, own: asyncio.Future[None] | None) -> None:
        """Have that stream go on, if it waits, and the one that has waited longest, if there is room."""
        if own and not own.done():
            own.set_result(None)
            self._waiting.remove(own)
        while self._waiting and self._bytes <= MOST_BYTES:
            if not (first := self._waiting.popleft()).done():
                first.set_result(None)
                break


def _next_group(arrivals: deque[Request], is_small: Callable[[Request], bool]) -> list[Request]:
    """The first request, and those after it that are small, if it is."""
    group = [arrivals.popleft()]
    if is_small(group[0]):
        while arrivals and len(group) < MOST_TOGETHER and is_small(arrivals[0]):
            group.append(arrivals.popleft())
    return group
