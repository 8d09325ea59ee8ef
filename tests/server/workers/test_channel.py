"""Messages between two processes of one daemon."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from imds_proxy.server.workers.channel import Channel, Message, packed, pair


class End:
    """What came at one end."""

    def __init__(self, wire: socket.socket) -> None:
        self.heard: list[tuple[Message, int | None]] = []
        self.ended = asyncio.Event()
        self.channel = Channel(wire, lambda *one: self.heard.append(one), self.ended.set)

    async def got(self, count: int) -> list[Message]:
        while len(self.heard) < count:
            await asyncio.sleep(0.005)
        return [message for message, _ in self.heard]


def between(talk: Callable[[End, End], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        one, other = (End(wire) for wire in pair())
        try:
            return await asyncio.wait_for(talk(one, other), 10)
        finally:
            one.channel.close()
            other.channel.close()

    return asyncio.run(main())


def test_messages_come_whole_and_in_their_order() -> None:
    async def talk(one: End, other: End) -> list[Message]:
        for number in range(200):
            one.channel.send(("word", number, b"x" * number))
        return await other.got(200)

    assert between(talk) == [("word", number, b"x" * number) for number in range(200)]


def test_a_descriptor_goes_over_and_is_closed_here() -> None:
    async def talk(one: End, other: End) -> tuple[bytes, bytes]:
        read, write = os.pipe()
        one.channel.send(("take",), write)
        await other.got(1)
        theirs = other.heard[0][1]
        assert theirs is not None
        os.write(theirs, b"over")
        os.close(theirs)
        got = os.read(read, 10), os.read(read, 10)  # then nobody has the other end
        os.close(read)
        return got

    assert between(talk) == (b"over", b"")


def test_what_finds_no_room_waits_and_nothing_is_lost() -> None:
    async def main() -> list[int]:
        ours, theirs = pair()
        one = End(ours)
        for number in range(3000):
            one.channel.send(("word", number, b"x" * 1000))
        other = End(theirs)
        await one.channel.flushed()
        heard = [message[1] for message in await other.got(3000)]
        one.channel.close()
        other.channel.close()
        return heard

    assert asyncio.run(main()) == list(range(3000))


def test_the_end_is_told_after_all_that_was_sent() -> None:
    async def talk(one: End, other: End) -> int:
        for number in range(100):
            one.channel.send(("word", number))
        one.channel.close()
        await other.ended.wait()
        return len(other.heard)

    assert between(talk) == 100


def test_what_cannot_be_sent_any_more_is_closed_all_the_same() -> None:
    async def talk(one: End, other: End) -> bytes:
        read, write = os.pipe()
        other.channel.close()
        one.channel.send(("take",), write)
        got = os.read(read, 1)  # nobody has the other end
        os.close(read)
        return got

    assert between(talk) == b""


def test_an_ordinary_message_is_small() -> None:
    assert len(packed(("account", [(1, 2)] * 2000, [], [], [], [], 0))) < 65536
