"""The gate: turns are fair, bounded in time, and never beyond the budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from imds_proxy.errors import Refused
from imds_proxy.policy.rules import Rate
from imds_proxy.upstream.gate import OURS, UpstreamGate

T = TypeVar("T")
clock = time.monotonic


def with_gate(talk: Callable[[UpstreamGate], Awaitable[T]], rate: Rate, queue: float = 0.3) -> T:
    async def main() -> T:
        return await asyncio.wait_for(talk(UpstreamGate(rate, queue, clock)), 10)

    return asyncio.run(main())


def test_within_the_burst_nobody_waits() -> None:
    async def talk(gate: UpstreamGate) -> float:
        start = clock()
        await asyncio.gather(*(gate.turn(n, start + 1) for n in range(20)))
        return clock() - start

    assert with_gate(talk, Rate(10, 100)) < 0.1


def test_who_waits_too_long_is_told_when_to_come_back() -> None:
    async def talk(gate: UpstreamGate) -> Refused:
        gate.overloaded(clock(), retry_after=5)
        with pytest.raises(Refused) as caught:
            await gate.turn("a", clock() + 1)
        return caught.value

    error = with_gate(talk, Rate(50, 100), queue=0.05)
    assert (error.refusal.slug, error.refusal.status, error.retry_after) == ("busy", 429, 5)


def test_a_greedy_caller_does_not_make_a_polite_one_wait() -> None:
    async def talk(gate: UpstreamGate) -> float:
        greedy = [asyncio.create_task(gate.turn("greedy", clock() + 1)) for _ in range(250)]
        await asyncio.sleep(0.05)
        start = clock()
        await gate.turn("polite", start + 1)
        waited = clock() - start
        await asyncio.gather(*greedy, return_exceptions=True)
        return waited

    assert with_gate(talk, Rate(50, 100)) < 0.02


def test_what_goes_through_is_within_budget_and_burst() -> None:
    async def talk(gate: UpstreamGate) -> int:
        start, through = clock(), 0

        async def ask(number: int) -> None:
            nonlocal through
            await gate.turn(number % 7, start + 0.5)
            through += 1

        await asyncio.gather(*(ask(n) for n in range(500)), return_exceptions=True)
        return through

    assert with_gate(talk, Rate(40, 20), queue=0.5) <= 40 * 0.6 + 20


def test_the_proxys_own_call_comes_first_and_waits_as_long_as_its_caller_may() -> None:
    async def talk(gate: UpstreamGate) -> float:
        for number in range(30):
            asyncio.create_task(_quiet(gate.turn(number, clock() + 1)))  # noqa: RUF006
        await asyncio.sleep(0)
        start = clock()
        await gate.turn(OURS, start + 1)
        return clock() - start

    assert with_gate(talk, Rate(5, 1), queue=0.01) < 0.9


def test_a_waiter_that_leaves_makes_room() -> None:
    async def talk(gate: UpstreamGate) -> None:
        gate.overloaded(clock(), retry_after=1)
        waiting = [asyncio.create_task(gate.turn("a", clock() + 5)) for _ in range(256)]
        await asyncio.sleep(0)
        with pytest.raises(Refused):
            await gate.turn("b", clock() + 0.01)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(Refused, match="did not come"):
            await gate.turn("a", clock() + 0.01)

    with_gate(talk, Rate(50, 100), queue=5)


def test_a_change_of_budget_is_in_force_at_once() -> None:
    async def talk(gate: UpstreamGate) -> float:
        gate.change(Rate(7, 1), 0.01)
        return gate.rate

    assert with_gate(talk, Rate(50, 100)) == 7


async def _quiet(turn: Awaitable[None]) -> None:
    try:
        await turn
    except Refused:
        return
