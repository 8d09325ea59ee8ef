"""Answers known by heart: given again while all they rest on holds, and never for anything else."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from imds_proxy.config import Config
from imds_proxy.ledger.entries import Alike, StableCaller
from imds_proxy.ledger.tally import Cell, Tally
from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.policy.decision import Policy
from imds_proxy.policy.rules import Rate
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.session import Session
from imds_proxy.server.build import Daemon, apply, look_again, policy_of
from imds_proxy.server.plans import Failure, Lasting, Plan
from recorded import reply
from served import GET, PUT, KnownCaller, answer, conversation

POLICY = Policy("upgrade", False, SensitivePaths(()))


@dataclasses.dataclass
class InForce:
    policy: Policy = POLICY


@dataclasses.dataclass
class Parts:
    plan: Plan
    entry: Lasting
    in_force: InForce
    tally: Tally
    failure: Failure


@pytest.fixture
def parts() -> Parts:
    entry, in_force = Lasting(100.0), InForce()
    tally, session = Tally(), Session.LEGACY
    cell = Cell(Alike(StableCaller(), session.value, "/latest/meta-data/mac", "static"), session)
    bucket = TokenBucket(1, 3, 0.0)
    plan = Plan(b"wire", entry, 50.0, in_force, POLICY, bucket, cell, tally.bump, False)
    return Parts(plan, entry, in_force, tally, Failure())


def test_the_same_bytes_are_given_and_counted(parts: Parts) -> None:
    assert [parts.plan.answer(0.0, parts.failure) for _ in range(2)] == [b"wire", b"wire"]
    assert (parts.entry.hits, parts.entry.used_at) == (2, 0.0)
    assert parts.tally.counts[Session.LEGACY] == 2
    parts.plan.answer(0.0, parts.failure)
    assert parts.tally.counts[Session.LEGACY] == 3


def _policy(parts: Parts) -> None:
    parts.in_force.policy = dataclasses.replace(POLICY)


def _entry(parts: Parts) -> None:
    parts.entry.until = 10.0


def _failure(parts: Parts) -> None:
    parts.failure.note(5.0, "left")


def _bucket(parts: Parts) -> None:
    for _ in range(3):
        parts.plan.bucket.take(10.0)


@pytest.mark.parametrize("change", [_policy, _entry, _failure, _bucket])
def test_whatever_it_rests_on_ends_it(parts: Parts, change: Callable[[Parts], None]) -> None:
    assert parts.plan.answer(10.0 - 0.001, parts.failure) == b"wire"
    change(parts)
    assert parts.plan.answer(10.0, parts.failure) is None
    assert parts.tally.counts[Session.LEGACY] == 1


def test_what_the_caller_presented_ends_by_itself(parts: Parts) -> None:
    assert parts.plan.answer(49.9, parts.failure) == b"wire"
    assert parts.plan.answer(50.0, parts.failure) is None


MAC = GET % b"mac"
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


class Counting:
    """A service that tells how often it was asked, in its answers."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"PUT"):
                writer.write(reply(b"tok=="))
            else:
                self.asked += 1
                writer.write(reply(b"%d" % self.asked))


async def asked(reader: Reader, writer: Writer, head: bytes) -> tuple[int, bytes]:
    writer.write(head)
    status, _, body = await answer(reader)
    return status, body


def plans_of(daemon: Daemon) -> list[bytes]:
    return [head for connection in daemon.register for head in connection._plans]


def test_the_third_request_alike_is_known_by_heart_and_all_are_counted() -> None:
    async def talk(
        reader: Reader, writer: Writer, daemon: Daemon
    ) -> tuple[set[tuple[int, bytes]], list[bytes], int]:
        answers = {await asked(reader, writer, MAC) for _ in range(5)}
        return answers, plans_of(daemon), daemon.events.counts[Session.LEGACY]

    assert conversation(talk, script=Counting()) == ({(200, b"1")}, [MAC], 5)


def test_a_pipeline_of_known_and_unknown_heads_is_answered_in_order() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> list[bytes]:
        for _ in range(3):
            await asked(reader, writer, MAC)
            await asked(reader, writer, GET % b"hostname")
        writer.write(MAC + GET % b"hostname" + MAC + GET % b"new" + MAC[:20])
        writer.write(MAC[20:] + PUT + b"\r\n" + MAC)
        return [(await answer(reader))[2] for _ in range(7)]

    bodies = conversation(talk)
    item = b"/latest/meta-data/%s"
    mac, host, new = item % b"mac", item % b"hostname", item % b"new"
    assert bodies == [mac, host, mac, new, mac, b"tok==", mac]


def test_a_known_head_that_asks_to_close_closes() -> None:
    head = MAC[:-2] + b"Connection: close\r\n\r\n"

    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> list[bytes]:
        port = writer.get_extra_info("peername")[1]
        raw = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            raw.append(await reader.read())
            writer.close()
        return raw

    raw = conversation(talk)
    assert len(set(raw)) == 1
    assert b"Connection: close\r\n" in raw[0]
    assert raw[0].endswith(b"\r\n\r\n/latest/meta-data/mac")


def test_a_known_head_request_gets_no_body() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> bytes:
        for _ in range(3):
            await asked(reader, writer, MAC)
        raw = b""
        for _ in range(4):
            writer.write(MAC.replace(b"GET", b"HEAD"))
            raw = await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        return raw + await reader.read()

    assert conversation(talk).count(b"\r\n\r\n") == 1


def test_a_reload_ends_what_was_known() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> tuple[list[int], int]:
        statuses = [(await asked(reader, writer, MAC))[0] for _ in range(4)]
        config = Config(mode="enforce")
        plenty = Rate(1e6, 1e6)
        limits = dataclasses.replace(config.limits, hits=plenty, misses=plenty, upstream=plenty)
        config = dataclasses.replace(config, limits=limits)
        apply(daemon, config, policy_of(config))
        statuses.append((await asked(reader, writer, MAC))[0])
        return statuses, daemon.events.refused

    assert conversation(talk) == ([200] * 4 + [403], 1)


def test_a_reload_of_limits_counts_from_the_next_request() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> list[int]:
        for _ in range(4):
            await asked(reader, writer, MAC)
        limits = dataclasses.replace(Config().limits, hits=Rate(0.001, 2))
        apply(daemon, dataclasses.replace(Config(), limits=limits), policy_of(Config()))
        return [(await asked(reader, writer, MAC))[0] for _ in range(4)]

    assert conversation(talk) == [200, 200, 429, 429]


def test_the_rate_of_a_caller_is_the_same_known_or_not() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> list[int]:
        return [(await asked(reader, writer, MAC))[0] for _ in range(8)]

    assert conversation(talk, hits=Rate(0.001, 6)) == [200] * 6 + [429] * 2


def test_an_answer_that_is_replaced_is_no_longer_given() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> list[bytes]:
        bodies = [(await asked(reader, writer, MAC))[1] for _ in range(4)]
        cache = daemon.shared.service.cache
        cache.change(dataclasses.replace(cache._rules, enabled=False))
        return [*bodies, (await asked(reader, writer, MAC))[1]]

    assert conversation(talk, script=Counting()) == [b"1"] * 4 + [b"2"]


class Turns(KnownCaller):
    """Each connection is the next of these callers."""

    def __init__(self, *callers: Caller) -> None:
        self.callers = list(callers)

    def begin(self, accepted: socket.socket, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        return self.callers.pop(0)


def test_another_callers_token_is_not_known_by_heart() -> None:
    """The same bytes from another identity: served in audit, and reported; never by the first one's plan."""
    first = Caller(Identity(1000, unit="a.service"), process=Process(7))
    second = Caller(Identity(1001, unit="b.service"), process=Process(8))
    enforcing = {"policy": dataclasses.replace(Config().policy, enforcement="enforce")}

    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> list[int]:
        writer.write(PUT + b"\r\n")
        token = (await answer(reader))[2]
        head = MAC[:-2] + b"X-aliyun-ecs-metadata-token: %s\r\n\r\n" % token
        statuses = [(await asked(reader, writer, head))[0] for _ in range(4)]
        reader, writer = await asyncio.open_connection("127.0.0.1", writer.get_extra_info("peername")[1])
        statuses += [(await asked(reader, writer, head))[0] for _ in range(2)]
        writer.close()
        return statuses

    assert conversation(talk, Turns(first, second), enforcing) == [200] * 4 + [401] * 2


def test_after_a_failed_put_a_known_plain_get_counts_as_a_fallback() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> tuple[int, int]:
        for _ in range(4):
            await asked(reader, writer, MAC)
        bad = b"PUT /latest/api/token HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n"  # no TTL
        assert (await asked(reader, writer, bad))[0] == 400
        for _ in range(2):
            await asked(reader, writer, MAC)
        return daemon.events.counts[Session.LEGACY], daemon.events.counts[Session.FALLBACK]

    assert conversation(talk) == (4, 2)


def test_the_token_of_a_caller_is_given_again_by_heart() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> tuple[set[bytes], list[bytes], int]:
        put = PUT + b"\r\n"
        tokens = {(await asked(reader, writer, put))[1] for _ in range(6)}
        return tokens, plans_of(daemon), daemon.events.counts[Session.TOKEN]

    assert conversation(talk) == ({b"tok=="}, [PUT + b"\r\n"], 6)


@pytest.mark.parametrize("cached", [True, False])
def test_who_is_to_be_named_again_is_not_answered_by_heart_before(cached: bool) -> None:
    """What is known of pods has changed: on a connection that is open, too."""
    first = Caller(Identity(1000, unit="a.service"), process=Process(7))
    settings = {"cache": dataclasses.replace(Config().cache, enabled=cached)}
    callers = Turns(first, dataclasses.replace(first, is_self=True))

    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> list[int]:
        statuses = [(await asked(reader, writer, MAC))[0] for _ in range(4)]
        callers.epoch += 1
        look_again(daemon.attribution, daemon.register)
        return [*statuses, (await asked(reader, writer, MAC))[0]]

    statuses = conversation(talk, callers, settings, script=Counting())
    assert statuses[:4] == [200] * 4
    assert statuses[4] >= 400
