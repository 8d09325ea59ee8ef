"""Misses by heart: asked again as the last time, while all that it rested on holds."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from imds_proxy.config import Config
from imds_proxy.policy.rules import Rate
from imds_proxy.protocol.session import Session
from imds_proxy.server.asking import too_fast
from imds_proxy.server.build import Daemon, apply, policy_of
from imds_proxy.server.connection import CallerConnection
from imds_proxy.server.plans import Errand
from recorded import reply
from served import GET, PUT, answer, conversation

UNCACHED: dict[str, Any] = {"cache": dataclasses.replace(Config().cache, enabled=False)}
MAC = GET % b"mac"


class Counting:
    """A service that tells how often it was asked, in its answers; `missing` is not there, and what is asked
    for while `hangs` has no answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.hangs = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"PUT"):
                writer.write(reply(b"tok=="))
            elif not self.hangs:
                self.asked += 1
                status = b"404 Not Found" if b"missing" in head else b"200 OK"
                writer.write(reply(b"%d" % self.asked, status=status))


@dataclasses.dataclass
class Line:
    """One connection; `begun` are the requests that were not known by heart."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    daemon: Daemon
    service: Counting
    begun: list[bytes] = dataclasses.field(default_factory=list)

    async def ask(self, head: bytes) -> tuple[int, bytes]:
        self.writer.write(head)
        status, _, body = await answer(self.reader)
        return status, body


def line(
    talk: Callable[[Line], Awaitable[Any]], settings: dict[str, Any] | None = None, **limits: Any
) -> Any:
    service = Counting()

    async def conversed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon) -> Any:
        found = Line(reader, writer, daemon, service)
        begin = daemon.shared.service.begin

        def noting(request: Any, *rest: Any) -> Any:
            found.begun.append(request.target.path)
            return begin(request, *rest)

        daemon.shared.service.begin = noting  # type: ignore[assignment, method-assign]
        return await talk(found)

    return conversation(
        conversed, settings=UNCACHED if settings is None else settings, script=service, **limits
    )


def errands_of(connection: CallerConnection) -> dict[bytes, Errand]:
    assert connection._peer is not None
    return connection._peer.remembered.errands


async def known(one: Line, head: bytes = MAC) -> None:
    """Asks until it is known by heart."""
    while True:
        before = len(one.begun)
        status, _ = await one.ask(head)
        assert status == 200
        if len(one.begun) == before:
            return
        assert before < 5


def test_each_is_asked_of_the_service_and_counted() -> None:
    async def talk(one: Line) -> None:
        await known(one)
        begun, asked = len(one.begun), one.service.asked
        counted = one.daemon.shared.service.events.counts[Session.LEGACY]
        for number in range(1, 6):
            assert await one.ask(MAC) == (200, b"%d" % (asked + number))
        assert len(one.begun) == begun
        assert one.daemon.shared.service.events.counts[Session.LEGACY] == counted + 5

    line(talk)


def test_a_hardened_one_too_until_its_token_ends() -> None:
    async def talk(one: Line) -> None:
        status, token = await one.ask(PUT + b"\r\n")
        assert status == 200
        head = MAC[:-2] + b"X-aliyun-ecs-metadata-token: %b\r\n\r\n" % token
        await known(one, head)
        for connection in one.daemon.register:
            for errand in errands_of(connection).values():
                assert errand.session is Session.HARDENED
                errand.standing = dataclasses.replace(errand.standing, until=0.0)
        begun = len(one.begun)
        assert (await one.ask(head))[0] == 200
        assert len(one.begun) == begun + 1

    line(talk)


def test_under_another_policy_it_is_decided_anew() -> None:
    async def talk(one: Line) -> None:
        await known(one)
        config = Config()
        enforcing = dataclasses.replace(config, mode="enforce", **UNCACHED)
        apply(one.daemon, enforcing, policy_of(enforcing))
        assert (await one.ask(MAC))[0] == 403

    line(talk)


def test_after_a_failed_hardened_call_it_is_a_fallback() -> None:
    async def talk(one: Line) -> None:
        await known(one)
        (connection,) = one.daemon.register
        connection._failure.note(one.daemon.shared.clock(), "token:left")
        assert (await one.ask(MAC))[0] == 200
        assert one.daemon.shared.service.events.counts[Session.FALLBACK] == 1

    line(talk)


@pytest.mark.parametrize("limit", ["hits", "misses"])
def test_its_limits_hold(limit: str) -> None:
    async def talk(one: Line) -> list[int]:
        await known(one)
        return [(await one.ask(MAC))[0] for _ in range(10)]

    statuses = line(talk, None, **{limit: Rate(0.001, 6)})
    assert 200 in statuses
    assert set(statuses[statuses.index(429) :]) == {429}


def test_a_refused_miss_takes_no_hit_twice() -> None:
    async def talk(one: Line) -> list[int]:
        await known(one)
        return [(await one.ask(MAC))[0] for _ in range(12)]

    # Each takes one hit: of 14 some went before, and the rest are all there is.
    statuses = line(talk, hits=Rate(0.001, 14), misses=Rate(0.001, 4))
    assert statuses.count(200) <= 4
    assert len(statuses) == 12


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(GET % b"missing", id="not found"),
        pytest.param(MAC[:-2] + b"Connection: close\r\n\r\n", id="the last"),
    ],
)
def test_what_is_not_the_usual_is_not_kept(head: bytes) -> None:
    async def talk(one: Line) -> None:
        for _ in range(3):
            one.writer.write(head)
            await answer(one.reader)
            for connection in one.daemon.register:
                assert head not in errands_of(connection)
            if b"close" in head:
                return

    line(talk)


def test_what_is_kept_meanwhile_is_not_asked_for() -> None:
    async def talk(one: Line) -> None:
        first = await one.ask(MAC)
        for _ in range(5):
            assert await one.ask(MAC) == first

    line(talk, settings={})


def test_one_that_is_not_answered_in_time_is_told_so_and_the_next_too() -> None:
    async def talk(one: Line) -> None:
        await known(one)
        one.service.hangs = True
        for _ in range(2):
            began = asyncio.get_running_loop().time()
            assert (await one.ask(MAC))[0] == 503
            assert asyncio.get_running_loop().time() - began < 1.0

    line(talk)


def test_what_comes_before_the_answer_waits_for_its_turn() -> None:
    async def talk(one: Line) -> None:
        await known(one)
        for _ in range(3):
            one.writer.write(MAC)
            await asyncio.sleep(0)
            one.writer.write(MAC + GET % b"hostname")
        bodies = [int((await answer(one.reader))[2]) for _ in range(9)]
        assert bodies == sorted(bodies)
        assert len(set(bodies)) == 9

    line(talk)


def test_who_asks_too_fast_is_told_when_to_come_again() -> None:
    assert too_fast(0.2, "limits.misses").retry_after == 1
    assert too_fast(3.2, "limits.misses").retry_after == 4
