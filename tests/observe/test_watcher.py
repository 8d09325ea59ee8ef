"""Segments in, outcomes out: sessions, names, flows that end in every way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from imds_proxy.config import Config
from imds_proxy.observe.segments import read_segment
from imds_proxy.observe.watcher import Watcher
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.policy.decision import Policy
from imds_proxy.protocol.session import Session
from imds_proxy.server.build import policy_of
from imds_proxy.server.events import Outcome, RequestEvents
from packets import ACK, CLIENT, FIN, MAC, PUT, RST, RULES, SERVICE, SYN, answer, packet

GET_WITH_TOKEN = MAC[:-2] + b"X-aliyun-ecs-metadata-token: t\r\n\r\n"
CALLER = Caller(Identity(1000, unit="a.service"), process=Process(7, "/usr/bin/curl"), start_ticks=1)


class Books:
    """What is recorded."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.unread: list[str] = []
        self.expected: list[tuple[Session, str]] = []

    def tally_of(self, caller: Caller) -> Any:
        return caller

    def record(self, outcome: Outcome, tally: Any) -> None:
        assert tally is outcome.caller
        self.outcomes.append(outcome)

    def expect(self, caller: Caller, session: Session, path: str, agent: str, cause: str) -> None:
        self.expected.append((session, path))

    def refused_unread(self, refusal: Any, caller: Caller, detail: str) -> None:
        self.unread.append(refusal.slug)

    def sessions(self) -> list[Session]:
        return [one.session for one in self.outcomes]


class Wire:
    """Connections between a client and the service, whose packets a watcher sees."""

    def __init__(self, name: Any = lambda client, service: CALLER, policy: Policy | None = None) -> None:
        self.books, self.now, self.port = Books(), 100.0, 40000
        books = cast(RequestEvents, self.books)
        self.watcher = Watcher(RULES, name, policy or policy_of(Config()), books, lambda: self.now)

    def client(self, payload: bytes = b"", sequence: int = 1, flags: int = ACK) -> None:
        self._see((CLIENT, self.port), (SERVICE, 80), payload, sequence, flags)

    def service(self, payload: bytes = b"", sequence: int = 1, flags: int = ACK) -> None:
        self._see((SERVICE, 80), (CLIENT, self.port), payload, sequence, flags)

    def talk(self, request: bytes, reply: bytes) -> None:
        """One connection from its first packet to its last."""
        self.port += 1
        self.client(flags=SYN, sequence=0)
        self.service(flags=SYN | ACK, sequence=0)
        self.client(request)
        self.service(reply)
        self.client(flags=ACK | FIN, sequence=1 + len(request))
        self.service(flags=ACK | FIN, sequence=1 + len(reply))

    def _see(self, source: Any, target: Any, payload: bytes, sequence: int, flags: int) -> None:
        segment = read_segment(packet(source, target, payload, sequence, flags))
        assert segment is not None
        self.watcher.take(segment, target[1] == 80)


def test_the_sessions_are_told_apart_and_a_fallback_has_its_cause() -> None:
    wire = Wire()
    wire.talk(MAC, answer(200))
    wire.talk(PUT + b"\r\n", answer(200, b"t"))
    wire.talk(GET_WITH_TOKEN, answer(200))
    wire.talk(PUT + b"\r\n", answer(403))
    wire.talk(MAC, answer(200))
    assert [one.value for one in wire.books.sessions()] == [
        "legacy",
        "token",
        "hardened",
        "token",
        "fallback",
    ]
    assert wire.books.outcomes[-1].cause == "token:status-403"
    assert {one.caller for one in wire.books.outcomes} == {CALLER}
    wire.now += 12
    wire.talk(MAC, answer(200))
    assert wire.books.sessions()[-1] is Session.LEGACY


def test_a_connection_without_an_answer_counts_when_it_ends_or_grows_old() -> None:
    wire = Wire()
    wire.client(MAC)
    wire.service(flags=RST)
    wire.port += 1
    wire.client(MAC)
    assert wire.books.sessions() == [Session.LEGACY]
    wire.now += 31
    wire.watcher.tend()
    assert wire.books.sessions() == [Session.LEGACY] * 2
    wire.port += 1
    wire.client(MAC)
    wire.watcher.close()
    assert len(wire.books.outcomes) == 3


def test_a_name_that_takes_its_time_comes_to_what_was_said_meanwhile() -> None:
    async def main() -> Wire:
        known = asyncio.Event()

        async def name() -> Caller:
            await known.wait()
            return CALLER

        def ask(client: Any, service: Any) -> Coroutine[Any, Any, Caller]:
            assert (client.host, client.port, service.host) == (CLIENT, 40001, SERVICE)
            return name()

        wire = Wire(ask)
        wire.talk(MAC, answer(200))
        await asyncio.sleep(0)
        assert wire.books.outcomes == [], "no name, no word"
        known.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return wire

    assert [one.caller for one in asyncio.run(main()).books.outcomes] == [CALLER]


def test_what_enforcement_would_refuse_is_noted() -> None:
    unknown = Caller(Identity(None, origin=CLIENT), why_unresolved="gone")
    wire = Wire(lambda client, service: unknown)
    wire.talk(MAC.replace(b"meta-data/mac", b"user-data"), answer(200))
    wire.talk(MAC, answer(200))
    refusals = [one.would_refuse and one.would_refuse.slug for one in wire.books.outcomes]
    assert refusals == ["unresolved", None]


def test_the_same_ports_again_are_another_connection() -> None:
    wire = Wire()
    wire.client(flags=SYN, sequence=0)
    wire.client(MAC)
    wire.client(flags=SYN, sequence=5000)
    wire.client(MAC, sequence=5001)
    wire.service(answer(200), sequence=9)
    assert len(wire.books.outcomes) == 2


def test_a_flood_of_connections_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imds_proxy.observe.watcher._MOST_FLOWS", 16)
    wire = Wire()
    for _ in range(100):
        wire.port += 1
        wire.client(flags=SYN, sequence=0)
    assert wire.watcher.dropped == 84


def test_what_cannot_be_read_is_counted_by_its_reason() -> None:
    wire = Wire()
    wire.client(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert wire.watcher.unread == 1
    assert wire.books.unread == ["bad-request"]


def test_who_asks_is_looked_at_before_the_answer_since_it_may_end_with_that() -> None:
    wire = Wire()
    wire.client(flags=SYN, sequence=0)
    wire.client(MAC)
    assert wire.books.expected == [(Session.LEGACY, "/latest/meta-data/mac")]
    assert wire.books.outcomes == []


def test_one_whose_name_takes_its_time_is_looked_at_as_soon_as_it_is_known() -> None:
    async def main() -> None:
        known = asyncio.Event()

        async def later() -> Caller:
            await known.wait()
            return CALLER

        wire = Wire(lambda client, service: later())
        wire.client(flags=SYN, sequence=0)
        wire.client(MAC)
        assert wire.books.expected == []
        known.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert wire.books.expected == [(Session.LEGACY, "/latest/meta-data/mac")]

    asyncio.run(main())
