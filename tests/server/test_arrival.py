"""Connections that come from another process, and may go back to it."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from typing import Any

from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.server.arrival import Arrival, Resting
from imds_proxy.server.build import Daemon
from imds_proxy.server.connection import CallerConnection
from recorded import recorded_service
from served import GET, KnownCaller, answer, echoing, served

ONE = Caller(Identity(1000, unit="test.service"), process=Process(7, "/usr/bin/test"))
MAC = GET % b"mac"


class Visit:
    """A connection handed over with `owed`, and what it said when it rested."""

    def __init__(self, daemon: Daemon, owed: bytes = b"") -> None:
        self.shared = dataclasses.replace(daemon.shared, attribution=KnownCaller())
        self.owed = owed
        self.rested: list[bool] = []
        self.last: tuple[Caller, bytes] | None = None
        self.connection: Resting | None = None

    def rests(self, connection: Resting, caller: Caller, head: bytes, by_heart: bool) -> None:
        self.rested.append(by_heart)
        self.last = caller, head
        self.connection = connection

    async def open(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        theirs, ours = socket.socketpair()
        ours.setblocking(False)
        arrival = Arrival(ONE, 0, data, (("127.0.0.1", 1), ("127.0.0.1", 80)), self.owed, self.rests)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: CallerConnection(self.shared, arrival), ours)
        return await asyncio.open_connection(sock=theirs)


def visiting(talk: Any, owed: bytes = b"") -> Any:
    async def main() -> Any:
        async with recorded_service(echoing) as service, served(service) as (_, daemon):
            return await asyncio.wait_for(talk(Visit(daemon, owed)), 10)

    return asyncio.run(main())


def test_what_is_owed_goes_out_first() -> None:
    async def talk(visit: Visit) -> bytes:
        reader, writer = await visit.open(MAC)
        first = await reader.readexactly(9)
        assert (await answer(reader))[2] == b"/latest/meta-data/mac"
        writer.close()
        return first

    assert visiting(talk, b"the rest.") == b"the rest."


def test_it_says_when_it_rests_and_what_was_asked_last_once_that_is_known() -> None:
    async def talk(visit: Visit) -> list[object]:
        reader, writer = await visit.open()
        found: list[object] = [visit.last]
        for _ in range(2):
            writer.write(MAC)
            await answer(reader)
            found.append(visit.last)
        writer.close()
        return found

    assert visiting(talk) == [None, None, (ONE, MAC)]


def test_it_leaves_with_its_descriptor_and_the_caller_notices_nothing() -> None:
    async def talk(visit: Visit) -> bytes:
        reader, writer = await visit.open()
        for _ in range(2):
            writer.write(MAC)
            await answer(reader)
        assert visit.connection is not None
        number = visit.connection.leave()
        assert number is not None
        await asyncio.sleep(0.05)
        assert len(visit.shared.register) == 0
        writer.write(b"more")
        await asyncio.sleep(0.01)
        with socket.socket(fileno=number) as elsewhere:
            got = elsewhere.recv(10)
            elsewhere.send(b"answer")
            assert await reader.readexactly(6) == b"answer"
        writer.close()
        return got

    assert visiting(talk) == b"more"


def test_it_does_not_leave_while_it_is_busy_or_gone() -> None:
    async def talk(visit: Visit) -> None:
        reader, writer = await visit.open()
        for _ in range(2):
            writer.write(MAC)
            await answer(reader)
        connection = visit.connection
        assert connection is not None
        writer.write(MAC[:10])
        await asyncio.sleep(0.01)
        assert connection.leave() is None
        writer.close()
        await asyncio.sleep(0.01)
        assert connection.leave() is None

    visiting(talk)


def test_it_says_so_again_when_it_answered_by_heart_once_a_second() -> None:
    async def talk(visit: Visit) -> list[bool]:
        ahead = 0.0
        clock = visit.shared.clock
        visit.shared = dataclasses.replace(visit.shared, clock=lambda: clock() + ahead)
        reader, writer = await visit.open()
        for step in (0, 0, 0, 0, 2, 0, 2):
            ahead += step
            writer.write(MAC)
            await answer(reader)
        assert visit.last == (ONE, MAC)
        writer.close()
        return visit.rested

    assert visiting(talk) == [False, True, True]
