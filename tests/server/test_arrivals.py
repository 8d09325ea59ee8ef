"""Accepted connections: what is known by heart is answered in one turn, the rest goes the ordinary way."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from imds_proxy.config import parse_address
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.protocol.session import Session
from imds_proxy.server.arrivals import Arrivals
from imds_proxy.server.build import Daemon
from imds_proxy.server.listener import Accepted, Listener, bind, read_now
from recorded import recorded_service
from served import GET, PUT, KnownCaller, answer, echoing, served

MAC = GET % b"mac"
LAST = MAC[:-2] + b"Connection: close\r\n\r\n"
ONE = Caller(Identity(1000, unit="test.service"), process=Process(7, "/usr/bin/test"))
Talk: TypeAlias = Callable[[int, Daemon], Awaitable[Any]]


class Named(KnownCaller):
    """Each connection is of the next of these callers; a coroutine is one that has to be looked for."""

    def __init__(self, *callers: Caller, slowly: bool = False) -> None:
        self.callers, self.slowly = callers or (ONE,), slowly
        self.named: list[int] = []

    def begin(self, accepted: socket.socket, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        self.named.append(accepted.fileno())
        caller = self.callers[(len(self.named) - 1) % len(self.callers)]

        async def later() -> Caller:
            await asyncio.sleep(0.02)
            return caller

        return later() if self.slowly else caller


def arriving(talk: Talk, attribution: KnownCaller | None = None, **limits: Any) -> Any:
    """What `talk` makes of a port whose connections arrive."""

    async def main() -> Any:
        known = attribution or Named()
        async with recorded_service(echoing) as service, served(service, known, **limits) as (_, daemon):
            shared = dataclasses.replace(daemon.shared, attribution=known)
            listening = bind(parse_address("127.0.0.1:0"), 1)
            listener = Listener(listening, Arrivals(lambda: shared).welcome)
            try:
                return await asyncio.wait_for(talk(listening.getsockname()[1], daemon), 20)
            finally:
                listener.close()

    return asyncio.run(main())


def just_accepted(listening: socket.socket) -> Accepted:
    connection, (host, port) = listening.accept()
    connection.setblocking(False)
    peer = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))
    return Accepted(connection.detach(), peer, None)


async def asked(port: int, request: bytes, linger: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    raw = b"".join([part async for part in _parts(reader)]) if not linger else (await answer(reader))[2]
    writer.close()
    return raw


async def _parts(reader: asyncio.StreamReader) -> Any:
    while part := await reader.read(65536):
        yield part


def test_one_request_for_each_connection_is_answered_alike_known_or_not() -> None:
    async def talk(port: int, daemon: Daemon) -> tuple[int, int, int]:
        raw = [await asked(port, LAST) for _ in range(6)]
        return len(set(raw)), daemon.events.counts[Session.LEGACY], len(daemon.register)

    assert arriving(talk) == (1, 6, 0)


def test_a_known_request_needs_no_connection_object() -> None:
    """Its answer has been sent and its socket closed before another turn of the loop."""

    async def talk(port: int, daemon: Daemon) -> bytes:
        for _ in range(3):
            await asked(port, LAST)
        hosts = daemon.shared.hosts(("127.0.0.1", port))  # as if it came to that port
        shared = dataclasses.replace(daemon.shared, attribution=Named(), hosts=lambda _: hosts)
        listening = socket.create_server(("127.0.0.1", 0))
        with listening, socket.create_connection(listening.getsockname()) as caller:
            accepted = just_accepted(listening)
            caller.sendall(LAST)
            Arrivals(lambda: shared).welcome([accepted])
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(accepted.number)
            return caller.recv(65536)

    assert arriving(talk).endswith(b"/latest/meta-data/mac")


def test_whatever_is_not_one_small_known_request_goes_the_ordinary_way() -> None:
    async def talk(port: int, daemon: Daemon) -> list[bytes]:
        for _ in range(3):
            await asked(port, LAST)
        raw = [
            await asked(port, MAC, linger=True),  # keeps alive
            await asked(port, PUT + b"\r\n", linger=True),
            await asked(port, LAST.replace(b"GET", b"BREW")),
            await asked(port, MAC + LAST),  # two
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in LAST:  # piece by piece
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        raw.append(await reader.read())
        writer.close()
        return raw

    kept, token, refused, two, pieces = arriving(talk)
    assert (kept, token) == (b"/latest/meta-data/mac", b"tok==")
    assert refused.startswith(b"HTTP/1.1 405 ")
    assert two.count(b"HTTP/1.1 200") == 2
    assert pieces.endswith(b"/latest/meta-data/mac")


def test_all_of_a_batch_are_named_before_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    attribution = Named()

    async def talk(port: int, daemon: Daemon) -> tuple[list[int], list[bytes]]:
        named_when_read: list[int] = []

        def read(number: int, most: int) -> bytes | None:
            named_when_read.append(len(attribution.named))
            return read_now(number, most)

        monkeypatch.setattr("imds_proxy.server.arrivals.read_now", read)
        listening = socket.create_server(("127.0.0.1", 0))
        callers = [socket.create_connection(listening.getsockname()) for _ in range(3)]
        batch = [just_accepted(listening) for _ in callers]
        for caller in callers:
            caller.sendall(LAST.replace(b"100.100.100.200", b"127.0.0.1:%d" % listening.getsockname()[1]))
        shared = dataclasses.replace(daemon.shared, attribution=attribution)
        Arrivals(lambda: shared).welcome(batch)
        loop = asyncio.get_running_loop()
        raw = [await loop.run_in_executor(None, caller.recv, 65536) for caller in callers]
        for one in (listening, *callers):
            one.close()
        return named_when_read, raw

    named_when_read, raw = arriving(talk, attribution)
    assert named_when_read[:3] == [3, 3, 3]
    assert all(one.startswith(b"HTTP/1.1 200 ") for one in raw)


def test_a_caller_that_has_to_be_looked_for_is_answered_when_it_is_known() -> None:
    async def talk(port: int, _: Daemon) -> set[int]:
        return {(await asked(port, LAST)).count(b"HTTP/1.1 200 ") for _ in range(4)}

    assert arriving(talk, Named(slowly=True)) == {1}


def test_the_same_bytes_of_another_caller_are_its_own() -> None:
    other = dataclasses.replace(ONE, identity=Identity(1001, unit="other.service"))

    async def talk(port: int, daemon: Daemon) -> set[str | None]:
        for _ in range(8):
            await asked(port, LAST)
        return {alike.caller.unit for alike, count in daemon.events.take() if count == 4}

    assert arriving(talk, Named(ONE, other)) == {"test.service", "other.service"}


def test_the_limit_of_connections_holds() -> None:
    async def talk(port: int, daemon: Daemon) -> tuple[int, bytes]:
        open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        raw = await asked(port, LAST)
        held = len(daemon.register)
        for _, writer in open_ones:
            writer.close()
        return held, raw[:12]

    held, status = arriving(talk, connections=2)
    assert held <= 2
    assert status == b"HTTP/1.1 200"


def test_a_caller_that_says_nothing_and_leaves_leaves_nothing_behind() -> None:
    async def talk(port: int, daemon: Daemon) -> int:
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if not len(daemon.register):
                break
        return len(daemon.register)

    assert arriving(talk) == 0


def test_who_keeps_the_connection_is_answered_again_and_again_without_a_transport() -> None:
    async def talk(port: int, daemon: Daemon) -> tuple[list[bytes], int, bytes]:
        for _ in range(3):
            await asked(port, MAC, linger=True)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        bodies = []
        for _ in range(4):
            writer.write(MAC)
            bodies.append((await answer(reader))[2])
        registered = len(daemon.register)
        await until(lambda: len(daemon.register) == 1)  # a moment without a word
        writer.write(LAST)
        last = await reader.read()
        writer.close()
        return bodies, registered, last

    bodies, registered, last = arriving(talk)
    assert bodies == [b"/latest/meta-data/mac"] * 4
    assert registered == 0
    assert last.endswith(b"/latest/meta-data/mac")


def test_who_sends_later_is_answered_when_it_does() -> None:
    async def talk(port: int, daemon: Daemon) -> set[bytes]:
        for _ in range(3):
            await asked(port, LAST)
        raw = set()
        for pause in (0.005, 0.2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(pause)
            writer.write(LAST)
            raw.add(await reader.read())
            writer.close()
        return raw

    (raw,) = arriving(talk)
    assert raw.endswith(b"/latest/meta-data/mac")


def test_a_reload_that_names_callers_anew_asks_again_before_it_answers() -> None:
    attribution = Named()

    async def talk(port: int, daemon: Daemon) -> int:
        for _ in range(3):
            await asked(port, LAST)
        named = len(attribution.named)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: len(attribution.named) > named)
        attribution.epoch = 1
        writer.write(LAST)
        assert (await reader.read()).endswith(b"/latest/meta-data/mac")
        writer.close()
        return len(attribution.named) - named

    assert arriving(talk, attribution) == 2


async def until(condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


def test_a_drain_makes_ordinary_connections_of_those_that_wait() -> None:
    async def talk(port: int, daemon: Daemon) -> int:
        for _ in range(3):
            await asked(port, LAST)
        shared = dataclasses.replace(daemon.shared, attribution=Named())
        arrivals = Arrivals(lambda: shared)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            with socket.create_connection(listening.getsockname()):
                arrivals.welcome([just_accepted(listening)])
                assert len(daemon.register) == 0
                arrivals.close()
                await until(lambda: len(daemon.register) == 1)
            with socket.create_connection(listening.getsockname()):
                arrivals.welcome([just_accepted(listening)])  # accepted while the daemon drains
                await until(lambda: len(daemon.register) > 0)
        return 0

    assert arriving(talk) == 0
