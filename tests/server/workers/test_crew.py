"""The workers as the daemon sees them: begun, told, watched, replaced, recalled."""

from __future__ import annotations

import asyncio

from imds_proxy.server.workers.channel import Message
from imds_proxy.server.workers.learnt import Lesson
from manned import LAST, MAC, Ship, given, manned


async def accepts(ship: Ship) -> bool:
    """Whether the daemon itself takes who comes."""
    reader, writer = await asyncio.open_connection(*ship.listener.socket.getsockname())
    writer.write(LAST)
    try:
        return b"200" in await asyncio.wait_for(reader.read(64), 0.3)
    except (TimeoutError, asyncio.TimeoutError):
        return False
    finally:
        writer.transport.abort()


def test_the_daemon_accepts_until_a_worker_does_and_when_none_does_any_more() -> None:
    async def talk(ship: Ship) -> list[bool]:
        found = [await accepts(ship)]
        worker = await ship.worker()
        found.append(await accepts(ship))
        worker.wire.close()
        await asyncio.sleep(0.02)
        found.append(await accepts(ship))
        return found

    assert manned(talk) == [True, False, True]


def test_a_worker_is_told_how_callers_are_named_and_where_to_accept() -> None:
    async def talk(ship: Ship) -> tuple[Message, Message, Message]:
        worker = ship.ground.born[0]
        worker.says("ready", 0)
        (config, _), (on, _) = await worker.hears("config"), await worker.hears("listen")
        ship.listener.close()
        off, _ = await worker.hears("listen")
        return config, on, off

    config, on, off = manned(talk)
    assert config == (0, (frozenset(), False), 300.0)
    assert (on, off) == ((0, True), (0, False))


def test_another_configuration_ends_all_that_was_taught_at_once() -> None:
    async def talk(ship: Ship) -> tuple[Lesson, int, Message]:
        worker = await ship.worker()
        for _ in range(3):
            with ship.handed(worker, LAST) as caller:
                await given(caller)
        (_, _, _, ((_, lesson),)), _ = await worker.hears("teach")
        ship.crew.changed()
        told, _ = await worker.hears("config")
        return lesson, ship.ground.board.generation, told

    lesson, generation, told = manned(talk)
    assert lesson.generation != generation
    assert told[0] == 0


def test_a_worker_that_ends_is_said_and_another_takes_its_place() -> None:
    async def talk(ship: Ship) -> tuple[list[str], int]:
        worker = await ship.worker()
        worker.wire.close()
        await asyncio.sleep(0.05)
        await ship.worker(2)
        return ship.events(), ship.crew.serving

    assert manned(talk) == (["worker-ended"], 1)


def test_workers_that_end_again_and_again_are_begun_ever_later() -> None:
    async def talk(ship: Ship) -> tuple[int, list[str]]:
        for number in range(20):
            if len(ship.ground.born) > number:
                ship.ground.born[number].wire.close()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        return len(ship.ground.born), ship.events()

    born, said = manned(talk, 1)
    assert 2 <= born <= 4  # and not as often as they could be
    assert set(said) == {"worker-ended"}


def test_without_a_nursery_the_daemon_says_so_and_serves_alone() -> None:
    async def talk(ship: Ship) -> tuple[list[str], bool]:
        worker = await ship.worker()
        ship.ground.barren = True
        worker.wire.close()
        await asyncio.sleep(0.05)
        return ship.events(), await accepts(ship)

    said, alone = manned(talk, 1)
    assert said[:2] == ["worker-ended", "no-more-workers"]
    assert alone


def test_all_leave_and_what_they_held_is_the_daemons() -> None:
    async def talk(ship: Ship) -> tuple[int, bool]:
        one, other = await ship.worker(0), await ship.worker(1)
        leaving = asyncio.get_running_loop().create_task(ship.crew.leave())
        await one.hears("leave")
        await other.hears("leave")
        with ship.handed(one, MAC) as caller:
            await given(caller)
            one.wire.close()
            other.wire.close()
            await leaving
            return len(ship.daemon.register), ship.ground.closed

    assert manned(talk) == (1, True)


def test_a_recall_waits_for_all_but_not_for_ever() -> None:
    async def talk(ship: Ship) -> tuple[float, float]:
        one, other = await ship.worker(0), await ship.worker(1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        recalling = loop.create_task(ship.crew.recall())
        for worker in (one, other):
            await worker.hears("recall")
            worker.says("recalled")
        await recalling
        prompt, began = loop.time() - began, loop.time()
        await ship.crew.recall()
        return prompt, loop.time() - began

    prompt, late = manned(talk)
    assert prompt < 0.5 < late < 3
