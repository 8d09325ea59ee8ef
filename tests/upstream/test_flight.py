"""Single flight: one goes, all get it."""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from imds_proxy.errors import Refused
from imds_proxy.policy.rules import Rate
from imds_proxy.upstream.flight import FairFlight, SingleFlight, follow, wait_until
from imds_proxy.upstream.gate import UpstreamGate


def test_many_waiters_cause_one_call() -> None:
    async def main() -> tuple[int, list[int]]:
        calls = 0
        flight: SingleFlight[int] = SingleFlight()

        async def start() -> int:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0)
            return 7

        results = await asyncio.gather(*(asyncio.shield(flight.join("k", start)) for _ in range(100)))
        return calls, list(results)

    assert asyncio.run(main()) == (1, [7] * 100)


def test_a_waiter_that_leaves_does_not_cancel_the_others() -> None:
    async def main() -> int:
        go = asyncio.Event()
        flight: SingleFlight[int] = SingleFlight()

        async def start() -> int:
            await go.wait()
            return 7

        async def wait() -> int:
            return await asyncio.shield(flight.join("k", start))

        leaver, stayer = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
        leaver.cancel()
        go.set()
        return await stayer

    assert asyncio.run(main()) == 7


def test_an_error_reaches_all_and_is_forgotten() -> None:
    async def main() -> tuple[list[type[BaseException]], int]:
        flight: SingleFlight[int] = SingleFlight()

        async def fail() -> int:
            raise OSError("down")

        async def succeed() -> int:
            return 7

        waits = [asyncio.shield(flight.join("k", fail)) for _ in range(3)]
        errors = await asyncio.gather(*waits, return_exceptions=True)
        kinds = [type(error) for error in errors if isinstance(error, BaseException)]
        return kinds, await flight.join("k", succeed)

    assert asyncio.run(main()) == ([OSError] * 3, 7)


def test_after_the_deadline_the_work_goes_on() -> None:
    async def main() -> int:
        go = asyncio.Event()
        flight: SingleFlight[int] = SingleFlight()

        async def start() -> int:
            await go.wait()
            return 7

        task = flight.join("k", start)
        with pytest.raises(Refused) as caught:
            await wait_until(task, 0.01)
        assert caught.value.refusal.slug == "deadline"
        go.set()
        return await wait_until(task, 1)

    assert asyncio.run(main()) == 7


def with_fair(talk: Callable[[FairFlight[str], UpstreamGate], Awaitable[Any]], rate: Rate) -> Any:
    async def main() -> Any:
        gate = UpstreamGate(rate, 0.5, time.monotonic)
        return await asyncio.wait_for(talk(FairFlight(gate), gate), 10)

    return asyncio.run(main())


def test_whoever_comes_first_lets_the_flight_of_all_begin() -> None:
    """A greedy caller's turn is far away: it holds up nobody who asks for the same, and takes part too."""

    async def talk(fair: FairFlight[str], gate: UpstreamGate) -> tuple[float, list[str], int]:
        starts = 0

        async def start() -> str:
            nonlocal starts
            starts += 1
            await asyncio.sleep(0.01)
            return "value"

        for _ in range(60):
            asyncio.create_task(quietly(gate.turn("greedy", time.monotonic() + 1)))  # noqa: RUF006
        await asyncio.sleep(0)
        began = time.monotonic()
        greedy = asyncio.create_task(fair.join("key", "greedy", began + 1, start))
        await asyncio.sleep(0)
        polite = await fair.join("key", "polite", began + 1, start)
        took = time.monotonic() - began
        return took, [polite, await greedy], starts

    took, values, starts = with_fair(talk, Rate(20, 40))
    assert (values, starts) == (["value", "value"], 1)
    assert took < 0.1


def test_a_flight_that_never_began_is_busy_for_each_in_its_own_time_and_nothing_is_left() -> None:
    async def talk(fair: FairFlight[str], gate: UpstreamGate) -> list[BaseException | str]:
        gate.overloaded(time.monotonic(), retry_after=5)

        async def start() -> str:
            raise AssertionError("it must not begin")

        joins = (fair.join("key", who, time.monotonic() + 0.05, start) for who in ("a", "b"))
        found = await asyncio.gather(*joins, return_exceptions=True)
        assert "key" not in fair
        assert not fair._begun
        return list(found)

    assert [isinstance(one, Refused) for one in with_fair(talk, Rate(20, 40))] == [True, True]


def test_within_the_budget_a_flight_begins_at_once_and_is_shared() -> None:
    async def talk(fair: FairFlight[str], gate: UpstreamGate) -> tuple[list[str], int]:
        starts = 0

        async def start() -> str:
            nonlocal starts
            starts += 1
            await asyncio.sleep(0)
            return "value"

        joins = (fair.join("key", number, time.monotonic() + 1, start) for number in range(50))
        return list(await asyncio.gather(*joins)), starts

    assert with_fair(talk, Rate(20, 40)) == (["value"] * 50, 1)


async def quietly(turn: Awaitable[None]) -> None:
    with suppress(Refused):
        await turn


def test_a_flight_that_has_landed_before_a_late_waiter_wakes_leaves_newer_waiters_alone() -> None:
    async def talk(fair: FairFlight[str], gate: UpstreamGate) -> None:
        gate.overloaded(time.monotonic(), retry_after=1)  # all wait for their turn

        async def start() -> str:
            return "value"

        older = asyncio.create_task(fair.join("key", "a", time.monotonic() + 0.05, start))
        await asyncio.sleep(0)
        first, newer = fair._begun["key"], (asyncio.get_running_loop().create_future(), {object()})
        fair._begun["key"] = newer
        first[0].set_result(None)
        assert await older == "value"
        assert fair._begun["key"] is newer

    with_fair(talk, Rate(20, 40))


def test_a_flight_without_a_task_reaches_all_who_join_it() -> None:
    async def talk(fair: FairFlight[str], gate: UpstreamGate) -> None:
        for result in ("value", OSError("down")):
            assert fair.may_begin("key")
            fair.begin("key")
            assert not fair.may_begin("key")
            assert fair.may_begin("other")
            joins = [asyncio.create_task(fair.join("key", who, math.inf, _never)) for who in range(20)]
            await asyncio.sleep(0)
            joins.pop().cancel()
            await asyncio.sleep(0)
            fair.end("key", result)
            assert fair.may_begin("key")
            found = await asyncio.wait_for(asyncio.gather(*joins, return_exceptions=True), 1)
            assert found == [result] * 19

    with_fair(talk, Rate(20, 40))


@pytest.mark.parametrize("left", [False, True], ids=["nobody joined", "who joined has left"])
def test_an_error_of_a_flight_that_nobody_waits_for_is_nobodys(left: bool) -> None:
    async def talk(fair: FairFlight[str], gate: UpstreamGate) -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        fair.begin("key")
        if left:
            joined = asyncio.create_task(fair.join("key", "a", math.inf, _never))
            await asyncio.sleep(0)
            joined.cancel()
            await asyncio.sleep(0)
        fair.end("key", OSError("down"))
        await asyncio.sleep(0)
        gc.collect()
        assert not reported
        assert "key" not in fair

    with_fair(talk, Rate(20, 40))


def test_none_begins_past_those_who_wait() -> None:
    """Not even for another key, and not for the same one when the turn of those who wait has come."""

    async def talk(fair: FairFlight[str], gate: UpstreamGate) -> None:
        gate.take()  # the last one for 50 ms
        assert not fair.may_begin("key")

        begun = False

        async def start() -> str:
            nonlocal begun
            begun = True
            return "value"

        waiting = asyncio.create_task(fair.join("key", "a", time.monotonic() + 1, start))
        await asyncio.sleep(0.01)
        assert not fair.may_begin("key")
        assert not fair.may_begin("other")
        gate.change(Rate(1e6, 1), 0.5)
        while not begun:  # nor between a turn and the flight that it is for
            assert not fair.may_begin("key")
            await asyncio.sleep(0)
        assert await waiting == "value"

    with_fair(talk, Rate(20, 1))


def test_each_flight_costs_one_turn_whichever_way_it_begins() -> None:
    async def talk(fair: FairFlight[str], gate: UpstreamGate) -> None:
        taken = 0
        take = gate.take

        def counted() -> None:
            nonlocal taken
            taken += 1
            take()

        gate.take = counted  # type: ignore[method-assign]
        fair.begin("key")
        assert taken == 1
        joined = [asyncio.create_task(fair.join("key", who, math.inf, _never)) for who in range(5)]
        await asyncio.sleep(0)
        fair.end("key", "value")
        await asyncio.gather(*joined)
        assert taken == 1

        async def start() -> str:
            return "value"

        await asyncio.gather(*(fair.join("key", who, math.inf, start) for who in range(5)))
        assert taken == 2

    with_fair(talk, Rate(20, 40))


async def _never() -> str:
    raise AssertionError("it must not begin")


def test_who_follows_work_is_told_its_result_or_its_error_once_and_never_at_once() -> None:
    async def main() -> None:
        error, found = OSError("down"), list[str | Exception]()

        async def work(result: str | Exception, wait: float) -> str:
            if wait:
                await asyncio.sleep(wait)
            if isinstance(result, Exception):
                raise result
            return result

        for wait in (0, 0.01):
            for result in ("value", error):
                follow(work(result, wait), found.append)
        assert not found
        await asyncio.sleep(0.05)
        assert found == ["value", error, "value", error]

    asyncio.run(main())
