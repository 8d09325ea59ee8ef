"""Credentials that are rotated all the time: none is served after its end, few are read (issue 12, 3)."""

from __future__ import annotations

import asyncio

import pytest

from imds_proxy.emulator.settings import Settings
from turned import ROLE, turned

CALLERS = 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("life", "lead", "step"),
    [
        pytest.param(33.0, 3.0, 0.25, id="33 s, the next 3 s before"),
        pytest.param(60.0, 30.0, 0.25, id="60 s, the next 30 s before"),
        pytest.param(21600.0, 1800.0, 60.0, id="as the real service does, 660 times as fast"),
    ],
)
def test_no_expired_set_is_served_and_a_rotation_costs_two_reads(
    life: float, lead: float, step: float
) -> None:
    async def main() -> None:
        rotations = 10
        emulator = Settings(http_tokens="required", credential_life=life, rotation_lead=lead)
        async with turned(emulator) as bench:
            clients = bench.clients(CALLERS)
            served, expired, sets = 0, 0, set()
            shortest = life
            for _ in range(int(rotations * (life - lead) / step)):
                bench.turn(step)
                for given in await asyncio.gather(*(client.get(ROLE) for client in clients)):
                    assert given.status == 200
                    left = given.expires - bench.service.service.now()
                    served += 1
                    expired += left <= 0
                    shortest = min(shortest, left)
                    sets.add(given.body)
            reads = bench.service.counters().by_path[f"/latest/{ROLE}"]
        print(
            f"life {life:.0f} s, rotated each {life - lead:.0f} s, {rotations} times: {served} answers with "
            f"{len(sets)} sets, {expired} expired, least {shortest:.1f} s left; {reads} reads of the service"
        )
        assert expired == 0
        assert len(sets) >= rotations * (life - lead) / life - 1
        assert reads <= 2 * (rotations + 1)

    asyncio.run(main())
