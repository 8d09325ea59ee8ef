"""One worker as the daemon sees it: what it hands over, is taught, counts and keeps open."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from typing import Any

from imds_proxy.policy.caller import Identity, Process
from imds_proxy.server.workers.channel import Message
from manned import LAST, MAC, ONE, Ship, given, manned


def test_what_is_handed_over_is_answered_and_taught_once_it_is_known_by_heart() -> None:
    async def talk(ship: Ship) -> tuple[list[bytes], Message]:
        worker = await ship.worker()
        answers = []
        for _ in range(3):
            with ship.handed(worker, LAST) as caller:
                answers.append(await given(caller))
        taught, _ = await worker.hears("teach")
        return answers, taught

    answers, (caller, _, epoch, ((head, lesson),)) = manned(talk)
    assert len(set(answers)) == 1
    assert (caller, epoch, head) == (ONE, 0, LAST)
    assert (lesson.wire, lesson.closes) == (answers[0], True)


def test_a_connection_is_given_back_with_what_it_asked_for() -> None:
    async def talk(ship: Ship) -> tuple[Any, ...]:
        worker = await ship.worker()
        with ship.handed(worker, MAC) as caller:
            first = await given(caller)
            caller.send(MAC)
            assert await given(caller) == first
            (_, _, _, ((head, lesson),)), _ = await worker.hears("teach")
            (who, epoch, _), number = await worker.hears("back")
            await asyncio.sleep(0.02)
            connections = len(ship.daemon.register)
            with socket.socket(fileno=number) as back:
                back.send(lesson.wire)
                assert await given(caller) == first
        return who, epoch, head, connections

    assert manned(talk) == (ONE, 0, MAC, 0)


def test_one_that_came_back_for_nothing_stays() -> None:
    async def talk(ship: Ship) -> int:
        worker = await ship.worker()
        with ship.handed(worker, MAC, back=False) as caller:
            for _ in range(4):
                await given(caller)
                caller.send(MAC)
            await given(caller)
            return len(ship.daemon.register)

    assert manned(talk) == 1


def test_a_call_of_the_daemon_itself_is_a_loop_whoever_accepted_it() -> None:
    async def talk(ship: Ship) -> bytes:
        worker = await ship.worker()
        ourselves = dataclasses.replace(ONE, process=Process(os.getpid(), "/usr/bin/python3"))
        with ship.handed(worker, LAST, caller=ourselves) as caller:
            return await given(caller)

    assert b"X-Imds-Proxy: loop" in manned(talk)


def test_who_was_named_in_an_earlier_epoch_is_named_again() -> None:
    async def talk(ship: Ship) -> tuple[bool, bytes]:
        worker = await ship.worker()
        for _ in range(3):
            with ship.handed(worker, LAST) as caller:
                await given(caller)
        await worker.hears("teach")
        ship.daemon.shared.attribution.epoch = 1  # type: ignore[misc]
        ship.daemon.attribution.epoch = 1
        stranger = dataclasses.replace(ONE, identity=Identity(4444))
        with ship.handed(worker, LAST, caller=stranger) as caller:
            got = await given(caller)
        callers = [summary.example.identity.uid for summary in _summaries(ship)]
        return 4444 in callers, got

    named, got = manned(talk)
    assert not named
    assert b"200 OK" in got


def _summaries(ship: Ship) -> list[Any]:
    ship.daemon.events.take()
    return list(ship.daemon.events._tally.summaries())


def test_what_a_worker_counts_is_counted() -> None:
    async def talk(ship: Ship) -> tuple[int, int, int]:
        worker = await ship.worker()
        for _ in range(3):
            with ship.handed(worker, LAST) as caller:
                await given(caller)
        (_, _, _, ((_, lesson),)), _ = await worker.hears("teach")
        worker.says("account", [(lesson.number, 40)], [(lesson.lease, 40, 216)], [], [], [], 2)
        await asyncio.sleep(0.05)
        counts = ship.daemon.events.counts
        cache = ship.daemon.shared.service.cache
        return sum(counts.values()), ship.daemon.attribution.unresolved, cache.hits

    requests, unresolved, hits = manned(talk)
    assert (requests, unresolved, hits) == (43, 2, 42)


def test_connections_that_workers_keep_are_in_the_one_register() -> None:
    async def talk(ship: Ship) -> tuple[list[int], Message]:
        worker = await ship.worker()
        peer = b"\x02\0\x10\0" + bytes((127, 0, 0, 1)) + bytes(8)
        worker.says("seats", [(number, ONE.identity, peer) for number in range(5)])
        await asyncio.sleep(0.02)
        found = [len(ship.daemon.register)]
        next(iter(ship.daemon.register)).evict()
        evicted, _ = await worker.hears("evict")
        worker.says("account", [], [], [], [], [1, 2], 0)
        await asyncio.sleep(0.02)
        found.append(len(ship.daemon.register))
        worker.wire.close()
        await asyncio.sleep(0.02)
        return [*found, len(ship.daemon.register)], evicted

    assert manned(talk) == ([5, 2, 0], (0,))


def test_all_that_is_known_for_callers_alike_is_taught_at_once_and_once() -> None:
    async def talk(ship: Ship) -> list[list[bytes]]:
        worker = await ship.worker()
        heads = [LAST.replace(b"mac", b"item-%d" % number) for number in range(3)]
        for head in heads:
            for _ in range(2):  # learnt by the daemon, and not asked for again
                with ship.handed(worker, head) as caller:
                    await given(caller)
        found = []
        for head in heads[:2]:
            with ship.handed(worker, head) as caller:
                await given(caller)
            (_, _, _, lessons), _ = await worker.hears("teach")
            found.append(sorted(head for head, _ in lessons))
        return [sorted(heads), *found, [heads[1]]]

    every, first, second, again = manned(talk)
    assert first == every
    assert second == again


def test_a_connection_that_stayed_is_given_back_after_a_second_of_answers_by_heart() -> None:
    async def talk(ship: Ship) -> tuple[object, ...]:
        worker = await ship.worker()
        with ship.handed(worker, MAC, back=False) as caller:
            await given(caller)
            until = asyncio.get_running_loop().time() + 1.5
            while asyncio.get_running_loop().time() < until:
                caller.send(MAC)
                await given(caller)
                await asyncio.sleep(0.05)
                if len(ship.daemon.register) == 0:
                    break
            (who, _, _), number = await worker.hears("back")
            os.close(number)
        return (who,)

    assert manned(talk) == (ONE,)
