"""Questions and answers over a pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from service.errors import InvalidRequest
from service.processes.line import Line, LineClosed
from service.processes.workers import Workers


@contextlib.asynccontextmanager
async def lines() -> AsyncIterator[tuple[Line, Line]]:
    """The two ends of a line."""
    one, other = Line(), Line()
    for line, end in zip((one, other), socket.socketpair(), strict=True):
        await line.open(end)
    yield one, other
    one.close()
    await other.ended.wait()


async def test_each_question_gets_its_own_answer_whatever_the_order() -> None:
    asked: dict[int, asyncio.Event] = {1: asyncio.Event(), 2: asyncio.Event()}

    async def double(said: Any) -> Any:
        await asked[said].wait()
        return {"doubled": 2 * said}

    async with lines() as (one, other):
        other.answers["double"] = double
        first, second = (asyncio.create_task(one.ask("double", number)) for number in (1, 2))
        asked[2].set()
        assert await second == {"doubled": 4}
        assert not first.done()
        asked[1].set()
        assert await first == {"doubled": 2}


async def test_whoever_is_asked_may_ask_back() -> None:
    async with lines() as (one, other):

        async def name(_: Any) -> Any:
            return "one"

        async def greet(_: Any) -> Any:
            return f"hello {await other.ask('name')}"

        one.answers["name"], other.answers["greet"] = name, greet
        assert await one.ask("greet") == "hello one"


async def test_a_refusal_is_an_error_of_the_same_kind_and_a_fault_is_only_named_by_an_id() -> None:
    async def refuse(_: Any) -> Any:
        raise InvalidRequest("not this way")

    async def fail(_: Any) -> Any:
        raise ZeroDivisionError("secret")

    async with lines() as (one, other):
        other.answers |= {"refuse": refuse, "fail": fail}
        with pytest.raises(InvalidRequest, match="not this way"):
            await one.ask("refuse")
        with pytest.raises(RuntimeError, match="its log knows more under id"):
            await one.ask("fail")


async def test_whoever_waits_for_an_answer_learns_that_none_will_come() -> None:
    async def never(_: Any) -> Any:
        await asyncio.Event().wait()

    async with lines() as (one, other):
        other.answers["never"] = never
        asking = asyncio.create_task(one.ask("never"))
        await asyncio.sleep(0)
        other.close()
        with pytest.raises(LineClosed):
            await asking
        with pytest.raises(LineClosed):
            await one.ask("never")


async def test_an_answer_that_nobody_waits_for_any_more_harms_nothing() -> None:
    go_on = asyncio.Event()

    async def slow(_: Any) -> Any:
        await go_on.wait()
        return "late"

    async def quick(_: Any) -> Any:
        return "quick"

    async with lines() as (one, other):
        other.answers |= {"slow": slow, "quick": quick}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await one.ask("slow")
        go_on.set()
        assert await one.ask("quick") == "quick"


async def test_of_many_processes_those_that_answer_in_time_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stands still: whoever asks for the metrics does not wait until it is ended.

    Another one ends after it has answered: what it had counted is added to what has ended.
    """

    async def answer(_: Any) -> Any:
        return "here"

    async def answer_and_end(_: Any) -> Any:
        asked[2].is_serving = False
        return "gone"

    async def stand_still(_: Any) -> Any:
        await asyncio.Event().wait()

    async with lines() as (to_one, one), lines() as (to_other, other), lines() as (to_third, third):
        one.answers["metrics"], other.answers["metrics"] = answer, stand_still
        third.answers["metrics"] = answer_and_end
        asked: list[Any] = [SimpleNamespace(line=line, is_serving=True) for line in (to_one, to_other, to_third)]
        workers = Workers(3, {}, lambda worker: None)
        monkeypatch.setattr(workers, "serving", lambda: asked)
        async with asyncio.timeout(20):
            assert await workers.ask_all("metrics", within_s=0.5) == [(asked[0], "here")]
