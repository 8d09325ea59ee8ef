"""Clocks that jump: the machine sleeps, or the service's clock is set. No set is served after its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from imds_proxy.emulator.settings import Settings
from turned import ROLE, Bench, Client, turned

HOUR = 3600.0
Talk = Callable[[Bench, Client], Awaitable[None]]


def before(talk: Talk) -> None:
    async def main() -> None:
        async with turned(Settings(http_tokens="required")) as bench:
            await talk(bench, bench.clients(1)[0])

    asyncio.run(main())


async def left(bench: Bench, client: Client) -> float:
    """Seconds that the set which is served now lives by the service's clock."""
    given = await client.get(ROLE)
    assert given.status == 200
    return given.expires - bench.service.service.now()


def reads(bench: Bench) -> int:
    return bench.service.counters().by_path.get(f"/latest/{ROLE}", 0)


@pytest.mark.parametrize("hours", [5.4, 5.6, 5.95, 6.5, 700.0])
def test_after_a_sleep_of_the_machine_the_first_set_that_is_served_lives(hours: float) -> None:
    async def talk(bench: Bench, client: Client) -> None:
        await left(bench, client)
        bench.turn(hours * HOUR)
        assert await left(bench, client) > 300
        assert reads(bench) == (1 if hours < 5.5 else 2)

    before(talk)


@pytest.mark.parametrize("hours", [7.0, 5.97, 1.0, -1.0, -30.0])
def test_when_the_services_clock_was_set_all_is_judged_anew_with_its_next_answer(hours: float) -> None:
    async def talk(bench: Bench, client: Client) -> None:
        await left(bench, client)
        bench.service.patch(clock_offset=hours * HOUR)
        assert (await client.get("meta-data/vpc-id")).status == 200
        assert await left(bench, client) > 300
        assert reads(bench) == 2
        assert await left(bench, client) > 300
        assert reads(bench) == 2

    before(talk)


def test_a_machine_whose_own_clock_stood_still_learns_it_from_the_next_answer() -> None:
    """As one that was restored from an image of its memory."""

    async def talk(bench: Bench, client: Client) -> None:
        await left(bench, client)
        bench.turn(7 * HOUR)
        bench.clock.ahead -= 7 * HOUR
        assert (await client.get("meta-data/vpc-id")).status == 200
        assert await left(bench, client) > 300

    before(talk)
