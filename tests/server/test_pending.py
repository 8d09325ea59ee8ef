"""Answers that are on their way: brought once, or late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from imds_proxy.errors import Refused
from imds_proxy.protocol.responses import Answer, plain
from imds_proxy.server.pending import Deadlines, Pending, following

ANSWER = plain(200, b"value")


def run(talk: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(talk(), 10)

    asyncio.run(main())


def test_whoever_wants_it_is_told() -> None:
    pending, told = Pending(), list[Answer]()
    pending.told = told.append
    assert not pending.over
    pending.bring(ANSWER)
    assert pending.over
    assert told == [ANSWER]


def test_it_can_be_awaited_and_whoever_awaits_it_may_leave() -> None:
    async def talk() -> None:
        pending = Pending()
        asyncio.get_running_loop().call_later(0.01, pending.bring, ANSWER)
        assert await pending is ANSWER
        left = Pending()
        waiting = asyncio.ensure_future(left)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        left.bring(ANSWER)

    run(talk)


def test_it_brings_what_a_coroutine_returns() -> None:
    async def talk() -> None:
        async def work() -> Answer:
            await asyncio.sleep(0.01)
            return ANSWER

        assert await following(work()) is ANSWER

    run(talk)


def test_each_that_is_not_there_in_time_is_told_of_and_no_other() -> None:
    async def talk() -> None:
        deadlines, late = Deadlines(time.monotonic), list[tuple[int, str, float]]()
        began = time.monotonic()
        all_pending = [Pending() for _ in range(6)]
        for number, pending in enumerate(all_pending):

            def note(refused: Refused, number: int = number) -> None:
                late.append((number, refused.refusal.slug, time.monotonic() - began))

            deadlines.add(began + 0.05 * (number + 1), pending, note)
        for number in (0, 3):
            all_pending[number].bring(ANSWER)
        await asyncio.sleep(0.45)
        assert [number for number, _, _ in late] == [1, 2, 4, 5]
        assert {slug for _, slug, _ in late} == {"deadline"}
        for number, _, after in late:
            assert 0.05 * (number + 1) - 0.002 <= after < 0.05 * (number + 1) + 0.2

    run(talk)


def test_one_that_has_waited_before_has_its_own_earlier_time() -> None:
    async def talk() -> None:
        deadlines, late = Deadlines(time.monotonic), list[str]()
        now = time.monotonic()
        deadlines.add(now + 5, Pending(), lambda _: late.append("first"))
        deadlines.add(now + 0.02, Pending(), lambda _: late.append("second"))
        await asyncio.sleep(0.2)
        assert late == ["second"]

    run(talk)


def test_what_is_over_is_not_kept_until_its_time() -> None:
    async def talk() -> None:
        deadlines = Deadlines(time.monotonic)
        for _ in range(100):
            pending = Pending()
            deadlines.add(time.monotonic() + 60, pending, print)
            pending.bring(ANSWER)
        assert len(deadlines._waiting) == 1

    run(talk)
