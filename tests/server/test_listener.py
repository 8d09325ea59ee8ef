"""Listening sockets: what they accept comes out in batches, and nothing that waits is lost on close."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from imds_proxy.config import parse_address
from imds_proxy.server.listener import Accepted, Listener, bind


class Guests:
    """Keeps what was accepted."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.peers: list[object] = []

    def welcome(self, batch: Sequence[Accepted]) -> None:
        self.batches.append(len(batch))
        for accepted in batch:
            self.peers.append(accepted.peername)
            accepted.close()


async def until(condition: Callable[[], object], seconds: float = 2) -> None:
    for _ in range(int(seconds * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


def test_all_that_wait_come_in_batches_in_their_order() -> None:
    async def main() -> tuple[list[int], bool]:
        listening = bind(parse_address("127.0.0.1:0"), 1)
        callers = [socket.create_connection(listening.getsockname()) for _ in range(100)]
        names = [caller.getsockname() for caller in callers]
        guests = Guests()
        listener = Listener(listening, guests.welcome)
        await until(lambda: len(guests.peers) == 100)
        listener.close()
        for caller in callers:
            caller.close()
        return guests.batches, guests.peers == names

    assert asyncio.run(main()) == ([64, 36], True)


def test_close_takes_what_has_come_and_no_more() -> None:
    async def main() -> int:
        listening = bind(parse_address("127.0.0.1:0"), 1)
        guests, name = Guests(), listening.getsockname()
        listener = Listener(listening, guests.welcome)
        callers = [socket.create_connection(name) for _ in range(130)]
        listener.close()
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(name)
        for caller in callers:
            caller.close()
        return len(guests.peers)

    assert asyncio.run(main()) == 130


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_what_is_accepted_has_the_hop_limit(host: str) -> None:
    async def main() -> int:
        found: list[int] = []

        def welcome(batch: Sequence[Accepted]) -> None:
            for one in batch:
                option = (socket.IPPROTO_IP, socket.IP_TTL)
                if one.socket.family == socket.AF_INET6:
                    option = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
                found.append(one.socket.getsockopt(*option))
                assert one.own_name == one.socket.getsockname()
                assert one.peername == one.socket.getpeername()
                one.close()

        listening = bind(parse_address(f"{host}:0"), 3)
        listener = Listener(listening, welcome)
        caller = socket.create_connection(listening.getsockname()[:2])
        await until(lambda: found)
        caller.close()
        listener.close()
        return found[0]

    assert asyncio.run(main()) == 3


def test_an_address_that_is_taken_is_an_error_that_says_so() -> None:
    async def main() -> int | None:
        listening = bind(parse_address("127.0.0.1:0"), 1)
        with listening, pytest.raises(OSError, match="Address already in use") as error:
            bind(parse_address(f"127.0.0.1:{listening.getsockname()[1]}"), 1)
        return error.value.errno

    assert asyncio.run(main()) == errno.EADDRINUSE


def test_without_descriptors_it_waits_and_goes_on() -> None:
    async def main() -> int:
        listening = bind(parse_address("127.0.0.1:0"), 1)
        guests = Guests()
        listener = Listener(listening, guests.welcome)
        with socket.create_connection(listening.getsockname()), _descriptors_used_up():
            await asyncio.sleep(0.05)
            assert guests.peers == []
        await until(lambda: guests.peers)
        listener.close()
        return len(guests.peers)

    assert asyncio.run(main()) == 1


@contextlib.contextmanager
def _descriptors_used_up() -> Iterator[None]:
    fillers: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name.name) for name in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for number in fillers:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_silent_connection_is_accepted_at_once() -> None:
    """It is to be named as what it is now, not as what it is when it sends."""

    async def main() -> int:
        listening = bind(parse_address("127.0.0.1:0"), 1)
        guests = Guests()
        listener = Listener(listening, guests.welcome)
        with socket.create_connection(listening.getsockname()):
            await until(lambda: guests.peers)
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 0
        listener.close()
        return len(guests.peers)

    assert asyncio.run(main()) == 1


def test_while_it_pauses_others_accept_and_closing_takes_what_is_left() -> None:
    async def main() -> list[int]:
        listening, guests, closed = bind(parse_address("127.0.0.1:0"), 1), Guests(), []
        listener = Listener(listening, guests.welcome, lambda: closed.append(len(guests.peers)))
        listener.pause(True)
        listener.pause(True)
        callers = [socket.create_connection(listening.getsockname()) for _ in range(3)]
        await asyncio.sleep(0.05)
        found = [len(guests.peers)]
        listening.accept()[0].close()
        listener.pause(False)
        await until(lambda: len(guests.peers) == 2)
        listener.pause(True)
        callers.append(socket.create_connection(listening.getsockname()))
        listener.close()
        listener.pause(False)
        for caller in callers:
            caller.close()
        return [*found, len(guests.peers), *closed]

    assert asyncio.run(main()) == [0, 3, 2]


def test_a_connection_can_be_given_away() -> None:
    theirs, ours = socket.socketpair()
    for named in (False, True):
        accepted = Accepted(os.dup(ours.fileno()), b"\x02\0" + bytes(14), None)
        if named:
            assert accepted.socket.fileno() == accepted.number
        number = accepted.detach()
        os.write(number, b".")
        os.close(number)
    assert theirs.recv(2) == b".."
    theirs.close()
    ours.close()
