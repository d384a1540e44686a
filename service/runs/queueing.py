"""Groups of images that wait for a model: by priority, each caller in turn, and fairly towards large ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from service.errors import DeadlinePassed
from service.runs.turns import Turns

Images = npt.NDArray[np.uint8]

# Priorities go from 1, the first to run, to this; 0 and larger numbers mean the ordinary one.
PRIORITY_LEVELS = 3
ORDINARY_PRIORITY = 2


class Answers(Protocol):
    """What the model says about images, in their order."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Self:
        """Of some of the images."""

    def followed_by(self, others: Sequence[Self], /) -> Self:
        """This and the others as one."""


A = TypeVar("A", bound=Answers)


class Account(Protocol):
    """Whoever counts the runs of some of the groups, as others do of others."""

    def ran(self, images: int, seconds: float) -> None:
        """One run held this many of their images."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[A]):
    """What the model said about a group of images, and where the time went.

    Attributes:
        answers: To its images.
        queue_seconds: From submission until the group's first run began.
        model_seconds: Sum of the runs that held images of the group.
        run: What the observer said of the last of them.
    """

    answers: A
    queue_seconds: float
    model_seconds: float
    run: object


@dataclass(slots=True, eq=False)
class Group(Generic[A]):
    """Images submitted together, and how far the model has come with them.

    Attributes:
        images: uint8 of shape (N, 1, 28, 28).
        deadline: `time.monotonic()` after which the answer is useless.
        submitted: Likewise, when they came.
        priority: 1 to `PRIORITY_LEVELS`; anything else is the ordinary one.
        account: Told of the runs that hold some of them.
        caller: Who submitted them.
        future: What the caller waits for.
    """

    images: Images
    deadline: float | None
    submitted: float
    priority: int
    account: Account | None
    caller: str
    future: asyncio.Future[Outcome[A]]
    taken: int = 0
    answered: int = 0
    queue_seconds: float = 0.0
    model_seconds: float = 0.0
    # Of each part, by where it begins.
    answers: dict[int, A] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Images that no run has taken."""
        return len(self.images) - self.taken

    def answer(self, start: int, answers: A, seconds: float, run: object) -> None:
        """A run that took so long answered the images from `start` on; when all are, the caller gets them."""
        self.answers[start] = answers
        self.answered += len(answers)
        self.model_seconds += seconds
        if self.answered == len(self.images) and not self.future.done():
            # Of two runs at the same time, the one with a later part may end first.
            first, *others = [self.answers[begins] for begins in sorted(self.answers)]
            answers = first.followed_by(others) if others else first
            self.future.set_result(Outcome(answers, self.queue_seconds, self.model_seconds, run))

    def is_late(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    def late(self, now: float) -> None:
        """The caller learns that the deadline has passed."""
        self.failed(DeadlinePassed(f"the deadline passed after {now - self.submitted:.3f} s in the queue"))

    def failed(self, error: Exception) -> None:
        """The caller gets an error instead."""
        if not self.future.done():
            self.future.set_exception(error)


# Groups of a run, each with those of its images that the run holds and where among all of them these begin.
Parts = list[tuple[Group[A], int, Images]]


class Queue(Generic[A]):
    """Groups that wait.

    Attributes:
        images: How many images of theirs wait.
    """

    def __init__(self, on_change: Callable[[int], None]):
        """Start empty; `on_change` is told how many images more wait, or fewer."""
        self.images = 0
        self._on_change = on_change
        # Whether the last run was a part of a large group.
        self._was_part = False
        self._levels: tuple[Turns[Group[A]], ...] = tuple(Turns() for _ in range(PRIORITY_LEVELS))

    def __len__(self) -> int:
        """Groups that have images in the queue."""
        return sum(map(len, self._levels))

    def add(self, group: Group[A]) -> None:
        """Have a group wait."""
        self._level(group.priority).add(group)
        self._count(len(group.images))

    def limit(self, limit: int, caller: str, priority: int, *, is_little: bool) -> int:
        """How many images may wait if a group of this caller and priority is to be accepted; see `Turns.limit`."""
        return self._level(priority).limit(limit, caller, is_little=is_little)

    def take(self, room: int, now: float) -> Parts[A]:
        """The next run: live groups by priority, one of each caller in turn, up to so many images.

        A large group is run in parts; after each, it goes to the end of its
        caller's line, and no part fills up a run of others. After a part comes
        what is no part, so that single images wait for one at most, however
        many callers have large groups. Those whose deadline has passed by
        `now` are told so.
        """
        batch: Parts[A] = []
        before, most = self.images, room
        while room and (level := next(filter(None, self._levels), None)):
            group = level.pop(self._goes_before(most))
            if group.is_late(now):
                self.images -= group.waiting
                group.late(now)
                continue
            if batch and group.waiting > room:
                level.put_back(group)
                break
            if not group.taken:
                group.queue_seconds = now - group.submitted
            start = group.taken
            part = group.images[start : start + room]
            group.taken += len(part)
            room -= len(part)
            self.images -= len(part)
            batch.append((group, start, part))
            if group.waiting:
                level.add(group)
        self._was_part = bool(batch) and len(batch[0][0].images) > most
        self._on_change(self.images - before)
        return batch

    def has_part_next(self, room: int) -> bool:
        """Whether the next run holds a part of a group of more images than these."""
        level = next(filter(None, self._levels), None)
        return level is not None and len(level.first(self._goes_before(room)).images) > room

    def give_back(self, batch: Parts[A]) -> None:
        """Have groups wait, as the first of all, for a run that did not take place.

        What was taken last is to be given back first.
        """
        for group, start, part in reversed(batch):
            if group.future.done():
                continue
            is_waiting = bool(group.waiting)
            group.taken = start
            self._count(len(part))
            if not is_waiting:
                self._level(group.priority).put_back(group)

    def let_others_go_first(self, batch: Parts[A]) -> None:
        """Have the groups of a run that wait for more of them wait behind those that came during the run."""
        for group, _, _ in batch:
            level = self._level(group.priority)
            if group.waiting and group in level:
                level.remove(group)
                level.add(group)

    def drop_late(self, now: float) -> None:
        """Take out the groups whose deadline has passed; their callers are told so."""
        for level in self._levels:
            for group in [each for each in level if each.is_late(now)]:
                level.remove(group)
                self._count(-group.waiting)
                group.late(now)

    def forget(self, group: Group[A]) -> None:
        """Take out a group that nobody waits for any more, if it is still here."""
        level = self._level(group.priority)
        if group in level:
            level.remove(group)
            self._count(-group.waiting)

    def fail(self, error: Exception) -> None:
        """Take out all groups; their callers get an error."""
        for level in self._levels:
            for group in level:
                group.failed(error)
            level.clear()
        self._count(-self.images)

    def _goes_before(self, room: int) -> Callable[[Group[A]], bool]:
        """What the next run takes before others: after a part, what fits into a run."""
        return lambda group: not self._was_part or len(group.images) <= room

    def _level(self, priority: int) -> Turns[Group[A]]:
        return self._levels[(priority if 1 <= priority <= PRIORITY_LEVELS else ORDINARY_PRIORITY) - 1]

    def _count(self, change: int) -> None:
        self.images += change
        self._on_change(change)
