"""Single flight: one goes, all get it."""

from __future__ import annotations

import asyncio

import pytest

from imds_proxy.errors import Refused
from imds_proxy.upstream.flight import SingleFlight, wait_until


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
