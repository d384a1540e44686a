"""Turns of callers: whoever has much waiting makes nobody else wait for all of it.

A caller is a connection, or for HTTP the address requests come from. Behind a
proxy all are one; then what waits is served in the order of arrival.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Generic, Protocol, TypeVar

# Who makes the request that is worked on. Set where requests arrive, and read where they have to wait.
CALLER: ContextVar[str] = ContextVar("caller", default="")
# Beyond the limit of a queue, an eighth of it is kept for callers of whom nothing waits and who ask for little.
KEPT_SHARE = 8


class Waiting(Protocol):
    """Something that waits."""

    @property
    def caller(self) -> str:
        """Whose it is."""


T = TypeVar("T", bound=Waiting)


class Turns(Generic[T]):
    """Things that wait: one of each caller in turn, and of one caller in the order of arrival."""

    def __init__(self) -> None:
        """Start empty."""
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __iter__(self) -> Iterator[T]:
        return (thing for line in self._lines.values() for thing in line)

    def __contains__(self, thing: T) -> bool:
        return thing in self._lines.get(thing.caller, ())

    def first(self, goes_before: Callable[[T], bool] = lambda _: True) -> T:
        """What is next: of the first things of all callers one that goes before others, if there is any."""
        firsts = (line[0] for line in self._lines.values())
        return next(filter(goes_before, firsts), next(iter(self._lines.values()))[0])

    def add(self, thing: T) -> None:
        """Have it wait behind what else its caller has waiting."""
        line = self._lines.get(thing.caller)
        if line is None:
            self._lines[thing.caller] = deque((thing,))
        else:
            line.append(thing)

    def pop(self, goes_before: Callable[[T], bool] = lambda _: True) -> T:
        """Take out what is next; its caller's next turn comes after those of all others."""
        thing = self.first(goes_before)
        caller, line = thing.caller, self._lines[thing.caller]
        line.popleft()
        if line:
            self._lines.move_to_end(caller)
        else:
            del self._lines[caller]
        return thing

    def put_back(self, thing: T) -> None:
        """Make it the next again."""
        line = self._lines.setdefault(thing.caller, deque())
        line.appendleft(thing)
        self._lines.move_to_end(thing.caller, last=False)

    def remove(self, thing: T) -> None:
        """Take it out, wherever it waits."""
        line = self._lines[thing.caller]
        line.remove(thing)
        if not line:
            del self._lines[thing.caller]

    def clear(self) -> None:
        """Take out all."""
        self._lines.clear()

    def limit(self, limit: int, caller: str, *, is_little: bool) -> int:
        """How much may wait if what a caller asks for is to be accepted.

        Args:
            limit: As a rule.
            caller: Who asks.
            is_little: Whether they ask for little.
        """
        return limit + limit // KEPT_SHARE + 1 if is_little and caller not in self._lines else limit
