"""From a request to its answer: sessions, modes, tokens and whose they are."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from collections.abc import Coroutine
from typing import Any, TypeAlias

import pytest

from imds_proxy.config import Config
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.policy.rules import Rate
from imds_proxy.protocol.session import Session
from imds_proxy.server.build import Daemon
from recorded import Script, reply
from served import GET, PUT, KnownCaller, answer, conversation

ENFORCING = {"policy": dataclasses.replace(Config().policy, enforcement="enforce")}
ROLE = b"ram/security-credentials/demo-role"
Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


@dataclasses.dataclass
class Callers(KnownCaller):
    """Each connection is the next of these callers."""

    callers: list[Caller]

    def begin(self, accepted: socket.socket, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        return self.callers.pop(0) if len(self.callers) > 1 else self.callers[0]


def caller(uid: int, pid: int = 7, unit: str = "a.service", **more: Any) -> Caller:
    return Caller(Identity(uid, unit=unit), process=Process(pid), start_ticks=pid, **more)


def service_of(token_status: bytes = b"200 OK", known: frozenset[bytes] = frozenset({b"tok=="})) -> Script:
    """A hardened service: knows some tokens, says 404 to `missing`."""

    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            name = b"x-aliyun-ecs-metadata-token: "
            token = next((line[len(name) :] for line in lines if line.startswith(name)), None)
            if head.startswith(b"PUT"):
                writer.write(reply(b"tok==", status=token_status))
            elif token is None:
                writer.write(reply(b"v1 refused", status=b"403 Forbidden"))
            elif token not in known:
                writer.write(reply(b"bad token", status=b"401 Unauthorized"))
            elif b"missing" in head:
                writer.write(reply(b"404 - Not Found", status=b"404 Not Found"))
            else:
                writer.write(reply(b"value"))

    return script


def with_token(item: bytes, token: bytes) -> bytes:
    return (GET % item)[:-2] + b"X-aliyun-ecs-metadata-token: %s\r\n\r\n" % token


def statuses(
    *requests: bytes,
    callers: list[Caller] | None = None,
    script: Script | None = None,
    settings: dict[str, Any] | None = None,
) -> tuple[list[int], dict[Session, int]]:
    """The status of each request, each on a connection of its own (so of the next caller)."""

    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> tuple[list[int], dict[Session, int]]:
        port = writer.get_extra_info("peername")[1]
        seen = []
        for number, request in enumerate(requests):
            if number:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            seen.append((await answer(reader))[0])
            writer.close()
        return seen, dict(daemon.events.counts)

    result: tuple[list[int], dict[Session, int]] = conversation(
        talk, Callers(callers or [caller(1000)]), settings, script or service_of()
    )
    return result


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("upgrade", [200, 200, 200]), ("enforce", [403, 200, 200]), ("passthrough", [403, 200, 200])],
)
def test_what_each_mode_makes_of_a_plain_get_a_put_and_a_get_with_its_token(
    mode: str, expected: list[int]
) -> None:
    got, _ = statuses(GET % b"mac", PUT + b"\r\n", with_token(b"mac", b"tok=="), settings={"mode": mode})
    assert got == expected


def test_the_four_kinds_of_session_are_told_apart() -> None:
    _, counts = statuses(
        GET % b"mac",
        PUT + b"\r\n",
        with_token(b"mac", b"tok=="),
        with_token(b"missing", b"tok=="),
        GET % b"missing",
    )
    assert counts == {Session.LEGACY: 1, Session.TOKEN: 1, Session.HARDENED: 2, Session.FALLBACK: 1}


def test_a_failed_call_of_one_process_makes_no_fallback_of_another() -> None:
    _, counts = statuses(
        with_token(b"mac", b"bad!"), GET % b"mac", callers=[caller(1000, pid=7), caller(1000, pid=8)]
    )
    assert counts[Session.FALLBACK] == 0


def test_a_fallback_is_no_way_in_where_legacy_is_refused() -> None:
    got, _ = statuses(with_token(b"mac", b"bad!"), GET % b"mac", settings={"mode": "enforce"})
    assert got == [401, 403]


def test_another_identity_with_ones_token_is_served_in_audit_and_refused_in_enforce() -> None:
    requests = (PUT + b"\r\n", with_token(b"mac", b"tok=="))
    thieves = [caller(1000), caller(1001)]
    assert statuses(*requests, callers=list(thieves))[0] == [200, 200]
    assert statuses(*requests, callers=list(thieves), settings=ENFORCING)[0] == [200, 401]
    other_unit = [caller(1000), caller(1000, unit="b.service")]
    assert statuses(*requests, callers=other_unit, settings=ENFORCING)[0] == [200, 401]


def test_put_by_one_process_and_get_by_another_of_the_same_unit_work_in_enforce() -> None:
    got, _ = statuses(
        PUT + b"\r\n",
        with_token(ROLE, b"tok=="),
        callers=[caller(1000, pid=7), caller(1000, pid=8)],
        settings=ENFORCING,
    )
    assert got == [200, 200]


def test_an_unresolved_caller_reads_no_sensitive_item_in_enforce() -> None:
    nobody = Caller(Identity(None, origin="127.0.0.1"), why_unresolved="no peer address")
    assert statuses(GET % ROLE, GET % b"mac", callers=[nobody], settings=ENFORCING)[0] == [403, 200]
    assert statuses(GET % ROLE, callers=[nobody])[0] == [200]


@pytest.mark.parametrize("ttl", [b"0", b"21601", b"abc", b"", b"-1", b"1.5", b"+5", None])
def test_a_wrong_ttl_is_a_400_as_the_service_says_it(ttl: bytes | None) -> None:
    head = b"PUT /latest/api/token HTTP/1.1\r\nHost: 100.100.100.200\r\n"
    if ttl is not None:
        head += b"X-aliyun-ecs-metadata-token-ttl-seconds: %s\r\n" % ttl
    assert statuses(head + b"\r\n")[0] == [400]


def test_a_relayed_put_is_a_403_even_without_a_ttl() -> None:
    head = b"PUT /latest/api/token HTTP/1.1\r\nHost: 100.100.100.200\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
    assert statuses(head)[0] == [403]


@pytest.mark.parametrize("said", [b"403 Forbidden", b"404 Not Found", b"429 Too Many", b"500 Oops"])
def test_a_failing_token_service_never_becomes_a_4xx_on_a_put(said: bytes) -> None:
    assert statuses(PUT + b"\r\n", script=service_of(token_status=said))[0] == [503]


def test_a_foreign_token_that_the_service_knows_is_served() -> None:
    script = service_of(known=frozenset({b"tok==", b"older"}))
    assert statuses(with_token(b"mac", b"older"), with_token(b"mac", b"older"), script=script)[0] == [
        200,
        200,
    ]


def test_the_proxys_own_calls_are_a_loop() -> None:
    assert statuses(GET % b"mac", callers=[caller(0, is_self=True)])[0] == [508]


def test_an_empty_token_header_counts_as_none() -> None:
    got, counts = statuses(with_token(b"mac", b""))
    assert got == [200]
    assert counts[Session.LEGACY] == 1


def test_a_missing_item_is_the_services_own_404() -> None:
    async def talk(reader: Reader, writer: Writer, _: Daemon) -> tuple[int, bytes, bytes]:
        writer.write(GET % b"missing")
        return await answer(reader)

    status, head, body = conversation(talk, script=service_of())
    assert (status, body) == (404, b"404 - Not Found")
    assert b"X-Imds-Proxy" not in head


async def opened(writer: Writer) -> tuple[Reader, Writer]:
    """One more connection to the same daemon."""
    return await asyncio.open_connection("127.0.0.1", writer.get_extra_info("peername")[1])


async def get(reader: Reader, writer: Writer, item: bytes) -> tuple[int, bytes]:
    """Status and body."""
    writer.write(GET % item)
    status, _, body = await answer(reader)
    return status, body


def test_a_defect_while_tokens_are_made_ready_costs_one_request() -> None:
    class Broken:
        ready = False

        async def prepare(self) -> None:
            raise OSError("no secret")

    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> list[int]:
        daemon.shared.service._tokens = Broken()  # type: ignore[assignment]
        writer.write(with_token(b"mac", b"tok==") + GET % b"mac")
        return [(await answer(reader))[0] for _ in range(2)]

    assert conversation(talk, script=service_of()) == [500, 200]


def test_many_callers_of_few_connections_get_each_its_own_answer() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> None:
        await get(reader, writer, b"mac")

        async def ask(caller: int) -> None:
            reader, own = await opened(writer)
            items = [b"own-%d/%d" % (caller, number) for number in range(20)]
            own.write(b"".join(GET % item for item in items))
            for item in items:
                status, _, body = await answer(reader)
                assert (status, body) == (200, b"/latest/meta-data/" + item)
            own.close()

        await asyncio.gather(*(ask(number) for number in range(60)))
        assert daemon.pool._open == 0
        assert daemon.pool.idle <= Config().upstream.connections

    conversation(talk, Callers([caller(uid) for uid in range(1000, 1060)]))


def test_callers_of_a_service_that_hangs_are_all_answered_in_time_and_nothing_is_left() -> None:
    hold = asyncio.Event()

    async def hanging(reader: Reader, writer: Writer) -> None:
        while True:
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            if b"hangs" in target:
                await hold.wait()
            writer.write(reply(b"tok==" if b"token" in target else target))

    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> None:
        assert (await get(reader, writer, b"mac"))[0] == 200

        async def ask(number: int) -> list[float]:
            reader, own = await opened(writer)
            began, took = time.monotonic(), []
            own.write(GET % (b"hangs-%d" % number) + GET % b"mac" + GET % (b"hangs-%d" % number))
            for expected in (503, 200, 503):
                assert (await answer(reader))[0] == expected
                took.append(time.monotonic() - began)
            own.close()
            return took

        for took in await asyncio.gather(*(ask(number) for number in range(40))):
            assert 0.85 < took[0] < 1.2
            assert took[1] - took[0] < 0.2
            assert took[2] - took[1] < 0.3  # it came as long ago as the first
        assert (await get(reader, writer, b"hangs-here"))[0] == 503
        hold.set()
        while daemon.pool._open or len(daemon.shared.service.cache._flights._flights):
            await asyncio.sleep(0.01)
        # What came too late was told to nobody.
        assert await get(reader, writer, b"mac") == (200, b"/latest/meta-data/mac")
        assert await get(reader, writer, b"hangs-0") == (200, b"/latest/meta-data/hangs-0")

    conversation(talk, script=hanging)


def test_each_miss_costs_its_caller_and_the_service_one_and_a_refused_one_costs_the_service_none() -> None:
    async def talk(reader: Reader, writer: Writer, daemon: Daemon) -> tuple[list[int], int]:
        taken = 0
        take = daemon.gate.take

        def counted() -> None:
            nonlocal taken
            taken += 1
            take()

        daemon.gate.take = counted  # type: ignore[method-assign]
        items = (b"mac", b"hostname", b"zone-id", b"mac", b"region-id", b"hostname")
        return [(await get(reader, writer, item))[0] for item in items], taken

    found = conversation(talk, script=service_of(), misses=Rate(0.001, 3))
    assert found == ([200, 200, 200, 200, 429, 200], 3)
