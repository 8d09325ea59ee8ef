"""Answers that are on their way: brought once, or late."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_who_is_told_that_it_is_late_may_ask_again_and_makes_nobody_later() -> None:
    async def talk() -> None:
        deadlines, late = Deadlines(time.monotonic), list[tuple[str, float]]()
        now = time.monotonic()

        def note(name: str) -> Callable[[Refused], None]:
            return lambda _: late.append((name, time.monotonic() - now))

        # Its next request, which waits as long as all do.
        deadlines.add(now + 0.05, Pending(), lambda _: deadlines.add(now + 0.6, Pending(), note("next")))
        deadlines.add(now + 0.1, Pending(), note("other"))
        await asyncio.sleep(0.8)
        assert [name for name, _ in late] == ["other", "next"]
        assert late[0][1] < 0.3

    run(talk)


def test_one_that_cannot_be_told_makes_nobody_wait_for_ever() -> None:
    async def talk() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        deadlines, late = Deadlines(time.monotonic), list[str]()

        def fail(_: Refused) -> None:
            raise ZeroDivisionError

        now = time.monotonic()
        deadlines.add(now + 0.01, Pending(), fail)
        deadlines.add(now + 0.01, Pending(), lambda _: late.append("other"))
        await asyncio.sleep(0.1)
        assert late == ["other"]
        deadlines.add(now + 0.12, Pending(), lambda _: late.append("next"))
        await asyncio.sleep(0.1)
        assert late == ["other", "next"]

    run(talk)


class StoppedLoop:
    """Time that passes where a test says so, with the timers that were set in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def call_later(self, seconds: float, timer: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (self.now + seconds, next(self._count), timer))

    def pass_until(self, until: float) -> None:
        while self.timers and self.timers[0][0] <= until:
            self.now, _, timer = heapq.heappop(self.timers)
            timer()
        self.now = until


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "bring", "pass"]),
        st.integers(0, 40),  # how long it may take, or passes; or which one is brought
        st.booleans(),  # whether it asks again when it is late
    ),
    max_size=60,
)


@given(STEPS)
def test_in_whatever_order_they_come_and_are_brought_each_late_one_is_told_once_at_its_time(
    steps: list[tuple[str, int, bool]],
) -> None:
    loop = StoppedLoop()
    deadlines = Deadlines(lambda: loop.now)
    untils: list[float] = []
    all_pending: list[Pending] = []
    late: dict[int, float] = {}
    brought: set[int] = set()

    def add(until: float, again: bool) -> None:
        number, pending = len(all_pending), Pending()
        untils.append(until)
        all_pending.append(pending)

        def over(refused: Refused) -> None:
            assert refused.refusal.slug == "deadline"
            assert number not in late
            late[number] = loop.now
            pending.bring(ANSWER)
            if again:
                add(loop.now + 30, again=False)

        deadlines.add(until, pending, over)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        for what, number, again in steps:
            if what == "add":
                add(loop.now + number, again)
            elif what == "pass":
                loop.pass_until(loop.now + number)
            elif number < len(all_pending) and not all_pending[number].over:
                all_pending[number].bring(ANSWER)
                brought.add(number)
        loop.pass_until(loop.now + 1000)
    assert late == {number: until for number, until in enumerate(untils) if number not in brought}
    assert not loop.timers
    assert not deadlines._waiting
