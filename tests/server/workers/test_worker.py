"""A worker in this process; the test is its daemon."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from imds_proxy.config import parse_address
from imds_proxy.policy.caller import Caller
from imds_proxy.server.listener import bind
from imds_proxy.server.memory import client_of
from imds_proxy.server.workers.board import Board, failure_slot
from imds_proxy.server.workers.channel import Channel, Message, pair
from imds_proxy.server.workers.learnt import Lesson
from imds_proxy.server.workers.worker import Worker

OURS = str(Path("/proc/self/exe").readlink())
HEAD = b"GET / HTTP/1.1\r\n\r\n"
OTHER = b"GET /other HTTP/1.1\r\n\r\n"


class Desk:
    """What the daemon hears, and says."""

    def __init__(self, wire: socket.socket, port: int, board: Board) -> None:
        self.port, self.board = port, board
        self.heard: list[tuple[Message, int | None]] = []
        self.ended = asyncio.Event()
        self.channel = Channel(wire, lambda *one: self.heard.append(one), self.ended.set)
        self.opened: list[asyncio.StreamWriter] = []
        self.lessons = 0

    async def next(self, word: str) -> tuple[tuple[Any, ...], int]:
        """The next message of that word, and its descriptor."""
        while True:
            for one in self.heard:
                if one[0][0] == word:
                    self.heard.remove(one)
                    return one[0][1:], one[1] or -1
            await asyncio.sleep(0.005)

    def lesson(self, wire: bytes = b"answer", **changes: Any) -> Lesson:
        self.lessons += 1
        facts: dict[str, Any] = {
            "number": self.lessons,
            "wire": wire,
            "until": float("inf"),
            "closes": False,
            "lease": 1,
            "generation": self.board.generation,
            "slot": 0,
            "stamp": self.board.generation,
        }
        return Lesson(**{**facts, **changes})

    def teach(self, caller: Caller, epoch: int = 3, **changes: Any) -> None:
        lessons = [(HEAD, self.lesson(**changes))]
        self.channel.send(("teach", caller, ("127.0.0.1", self.port), epoch, lessons))

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened.append(writer)
        return reader, writer

    async def taught(self, **changes: Any) -> tuple[Any, ...]:
        """A worker that knows one head, and a connection that was given back to it."""
        reader, writer = await self.open()
        writer.write(HEAD)
        words, number = await self.next("hand")
        caller, epoch, ends = words[1:4]
        self.channel.send(("grant", 1, 100))
        self.teach(caller, **changes)
        self.channel.send(("back", caller, epoch, ends[0]), number)
        return reader, writer, caller


def at_work(talk: Callable[[Desk], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        listening, board = bind(parse_address("127.0.0.1:0"), 1), Board()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)  # soon full
        ours, theirs = pair()
        left = asyncio.Event()
        worker = Worker(0, theirs, [listening], board, left.set)
        desk = Desk(ours, listening.getsockname()[1], board)
        try:
            assert (await desk.next("ready"))[0] == (os.getpid(),)
            desk.channel.send(("config", 3, (frozenset(), False), 60.0))
            desk.channel.send(("listen", 0, True))
            return await asyncio.wait_for(talk(desk), 10)
        finally:
            desk.channel.send(("leave",))
            await asyncio.wait_for(left.wait(), 5)
            await asyncio.wait_for(desk.ended.wait(), 5)
            listening.close()
            for writer in desk.opened:
                writer.transport.abort()
            await asyncio.sleep(0)
            del worker

    return asyncio.run(main())


def test_what_it_does_not_know_it_hands_over_with_the_callers_name_and_its_bytes() -> None:
    async def talk(desk: Desk) -> None:
        _, writer = await desk.open()
        writer.write(HEAD)
        (seat, caller, epoch, _, data, owed, short, back), number = await desk.next("hand")
        assert isinstance(caller, Caller)
        assert caller.process is not None
        assert caller.process.exe == OURS
        assert (seat, epoch, data, owed, short, back) == (0, 3, HEAD, b"", False, True)
        with socket.socket(fileno=number) as wire:
            assert wire.getpeername() == writer.get_extra_info("sockname")

    at_work(talk)


def test_it_answers_what_it_was_taught_and_tells_how_often() -> None:
    async def talk(desk: Desk) -> None:
        reader, writer, _ = await desk.taught()
        for _ in range(3):
            writer.write(HEAD)
            assert await reader.readexactly(6) == b"answer"
        counted, settled, *_ = (await desk.next("account"))[0]
        assert (counted, settled) == ([(1, 3)], [(1, 3, 0)])

    at_work(talk)


def test_it_answers_no_more_once_the_page_says_so() -> None:
    async def talk(desk: Desk) -> None:
        reader, writer, _ = await desk.taught()
        writer.write(HEAD)
        assert await reader.readexactly(6) == b"answer"
        desk.board.renew()
        writer.write(HEAD)
        words, number = await desk.next("hand")
        assert words[4] == HEAD
        os.close(number)

    at_work(talk)


def test_a_client_that_failed_is_the_daemons_for_as_long_as_that_counts() -> None:
    async def talk(desk: Desk) -> None:
        reader, writer, caller = await desk.taught()
        writer.write(HEAD)
        assert await reader.readexactly(6) == b"answer"
        desk.board.failures[failure_slot(client_of(caller))] = 1e12
        writer.write(HEAD)
        _, number = await desk.next("hand")
        os.close(number)

    at_work(talk)


def test_another_epoch_of_naming_makes_every_connection_the_daemons() -> None:
    async def talk(desk: Desk) -> None:
        _, writer, _ = await desk.taught()
        desk.channel.send(("config", 4, (frozenset(("/bin/sh",)), False), 60.0))
        desk.channel.send(("recall",))
        words, number = await desk.next("hand")
        assert words[2] == 3  # named in the old one
        await desk.next("recalled")
        os.close(number)
        writer.close()
        _, writer = await desk.open()
        writer.write(HEAD)
        words, number = await desk.next("hand")
        assert words[2] == 4
        os.close(number)

    at_work(talk)


def test_a_caller_that_does_not_read_is_the_daemons_with_what_it_is_owed() -> None:
    wire = b"x" * 4000

    async def talk(desk: Desk) -> None:
        reader, writer, _ = await desk.taught(wire=wire)
        writer.transport.pause_reading()
        answered = 0
        while not any(message[0] == "hand" for message, _ in desk.heard):
            writer.write(HEAD)
            answered += 1
            await asyncio.sleep(0.01)
        (_, _, _, _, data, owed, *_), number = await desk.next("hand")
        with socket.socket(fileno=number) as held:
            assert data == b""
            assert 0 < len(owed) <= len(wire)
            held.setblocking(True)
            paid = asyncio.get_running_loop().run_in_executor(None, held.sendall, owed)
            writer.transport.resume_reading()
            await paid
        assert len(await reader.readexactly(answered * len(wire))) == answered * len(wire)

    at_work(talk)


def test_a_connection_that_stays_is_told_and_closed_when_the_daemon_says_so() -> None:
    async def talk(desk: Desk) -> None:
        reader, _, caller = await desk.taught()
        ((seated,), _) = await desk.next("seats")
        ((seat, identity, _),) = seated
        assert identity == caller.identity
        desk.channel.send(("evict", seat))
        assert await reader.read() == b""
        while True:
            gone = (await desk.next("account"))[0][4]
            if gone:
                break
        assert gone == [seat]

    at_work(talk)


def test_a_kind_that_was_taught_is_answered_on_a_connection_of_its_own() -> None:
    async def talk(desk: Desk) -> None:
        _, writer = await desk.open()
        writer.write(HEAD)
        words, number = await desk.next("hand")
        os.close(number)
        writer.close()
        desk.channel.send(("grant", 1, 10))
        desk.teach(words[1], closes=True)
        await asyncio.sleep(0.05)
        reader, writer = await desk.open()
        writer.write(HEAD)
        assert await reader.read() == b"answer"

    at_work(talk)


def test_when_none_are_left_to_give_that_is_said() -> None:
    async def talk(desk: Desk) -> None:
        reader, writer, _ = await desk.taught()
        for _ in range(100):
            writer.write(HEAD)
            assert await reader.readexactly(6) == b"answer"
        await desk.next("more")
        writer.write(HEAD)
        words, number = await desk.next("hand")
        assert words[6] is True
        os.close(number)

    at_work(talk)


def test_it_leaves_with_nothing_kept_back() -> None:
    async def talk(desk: Desk) -> tuple[Desk, Any]:
        reader, writer, _ = await desk.taught()
        writer.write(HEAD)
        await reader.readexactly(6)
        _, quiet = await desk.open()
        await asyncio.sleep(0.05)
        return desk, (writer, quiet)

    desk, writers = at_work(talk)
    handed = [one for one in desk.heard if one[0][0] == "hand"]
    assert len(handed) == 2
    counted = [message for message, _ in desk.heard if message[0] == "account"]
    assert sum(count for one in counted for _, count in one[1]) == 1
    assert sum(used + unused for one in counted for _, used, unused in one[2]) == 100
    for _, number in handed:
        os.close(number or -1)
    assert writers


def test_a_lesson_for_callers_of_an_earlier_epoch_is_refused() -> None:
    async def talk(desk: Desk) -> None:
        reader, writer, caller = await desk.taught()
        desk.teach(caller, epoch=2, wire=b"wrong!")
        account = (await desk.next("account"))[0]
        assert account[2] == [2]
        writer.write(HEAD)
        assert await reader.readexactly(6) == b"answer"

    at_work(talk)
