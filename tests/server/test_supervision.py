from __future__ import annotations

import asyncio
from contextlib import suppress

from imds_proxy.server.notify import Notifier
from imds_proxy.server.supervision import Supervision
from manager import Manager


async def heard(manager: Manager, count: int) -> list[str]:
    messages: list[str] = []
    while len(messages) < count:
        messages += manager.heard()
        await asyncio.sleep(0.005)
    return messages


async def for_a_while(supervision: Supervision, manager: Manager, count: int) -> list[str]:
    task = asyncio.create_task(supervision.run())
    messages = await asyncio.wait_for(heard(manager, count), 5)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return messages


def test_the_watchdog_is_fed_thrice_in_its_time_and_only_by_the_loop(
    manager: Manager, notifier: Notifier
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        supervision = Supervision(notifier, 0.3, lambda: "serving")
        supervision.ready()
        assert manager.heard() == ["READY=1\nSTATUS=serving"]
        began = loop.time()
        assert await for_a_while(supervision, manager, 4) == ["WATCHDOG=1"] * 4
        assert loop.time() - began >= 0.3

    asyncio.run(main())


def test_the_status_is_said_when_it_changes(manager: Manager, notifier: Notifier) -> None:
    async def main() -> None:
        states = iter(["was not asked", "was not asked", "answers", "answers", "is down"])
        supervision = Supervision(notifier, 0.03, lambda: next(states, "is down"))
        supervision.ready()
        assert manager.heard() == ["READY=1\nSTATUS=was not asked"]
        said = await for_a_while(supervision, manager, 8)
        assert [one for one in said if one != "WATCHDOG=1"] == ["STATUS=answers", "STATUS=is down"]

    asyncio.run(main())


def test_a_drain_is_not_hung_and_nothing_else_is_said_of_it(manager: Manager, notifier: Notifier) -> None:
    async def main() -> None:
        supervision = Supervision(notifier, 0.03, lambda: "serving")
        supervision.stopping()
        said = await for_a_while(supervision, manager, 4)
        assert said[0].startswith("STOPPING=1\nSTATUS=draining")
        assert set(said[1:]) == {"WATCHDOG=1"}

    asyncio.run(main())


def test_a_reload_ends_with_ready(manager: Manager, notifier: Notifier) -> None:
    supervision = Supervision(notifier, None, lambda: "serving")
    supervision.reloading()
    supervision.ready()
    assert manager.heard() == ["RELOADING=1", "READY=1\nSTATUS=serving"]


def test_without_a_manager_there_is_nothing_to_do() -> None:
    asyncio.run(asyncio.wait_for(Supervision(Notifier(None), None, lambda: "serving").run(), 1))
