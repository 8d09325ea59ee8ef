"""Reads of the service: rebuilt, judged, repeated once for a new token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import pytest

from imds_proxy.errors import Refused
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import ALIBABA, ItemClass
from imds_proxy.protocol.responses import Answer
from imds_proxy.protocol.target import Target, canonical_target
from imds_proxy.upstream.reader import ServiceReader
from imds_proxy.upstream.tokens import TokenKeeper, TokenService
from recorded import Script, answers, pool_of, recorded_service, reply
from told import told

HEADERS = ((b"Host", b"100.100.100.200"),)
MAC = canonical_target(b"/latest/meta-data/mac")
T = TypeVar("T")
Allow = Callable[[Target], bool]
ReadMac = Callable[..., Answer]


def service_of(respond: Callable[[bytes, bytes | None], bytes]) -> Script:
    """Answers GETs by target and token; PUTs with token-1, token-2, …"""
    puts = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal puts
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            method, target, _ = lines[0].split(b" ")
            if method == b"PUT":
                puts += 1
                writer.write(reply(b"token-%d" % puts))
                continue
            name = ALIBABA.token_header + b": "
            token = next((line[len(name) :] for line in lines if line.lower().startswith(name)), None)
            writer.write(respond(target, token))

    return script


def read(script: Script, use: Callable[[ServiceReader], Coroutine[Any, Any, T]]) -> T:
    async def main() -> T:
        async with recorded_service(script) as service:
            pool = pool_of(service)
            clock = asyncio.get_running_loop().time
            tokens = TokenService(pool, ALIBABA, HEADERS, 0.3, clock, lambda: 0.5)
            reader = ServiceReader(pool, TokenKeeper(tokens, 21600, clock, lambda: 0.5), ALIBABA, HEADERS)
            try:
                return await asyncio.wait_for(use(reader), 10)
            finally:
                pool.close()

    return asyncio.run(main())


async def by_task(
    reader: ServiceReader, item: ItemClass = ItemClass.STATIC, allow: Allow = lambda _: True
) -> Answer:
    return await reader.read(MAC, item, allow)


async def by_callback(
    reader: ServiceReader, item: ItemClass = ItemClass.STATIC, allow: Allow = lambda _: True
) -> Answer:
    assert not reader.ready
    await reader._keeper.get()  # whose connection is kept
    assert reader.ready
    answer: Answer = await told(partial(reader.ask, MAC, item, allow))
    return answer


@pytest.fixture(params=[by_task, by_callback])
def read_mac(request: pytest.FixtureRequest) -> ReadMac:
    """A read of one item, by a task or by a callback."""
    return lambda script, *how: read(script, lambda reader: request.param(reader, *how))


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
def test_a_refused_token_is_renewed_and_the_call_repeated_once(read_mac: ReadMac, status: bytes) -> None:
    def respond(target: bytes, token: bytes | None) -> bytes:
        return reply(b"value") if token == b"token-2" else reply(b"no", status=status)

    assert read_mac(service_of(respond)).body == b"value"


def test_a_403_that_stays_is_the_services_own_answer(read_mac: ReadMac) -> None:
    assert read_mac(service_of(lambda *_: reply(b"no", status=b"403 Forbidden"))).status == 403


def test_a_401_for_a_fresh_token_is_never_the_callers(read_mac: ReadMac) -> None:
    with pytest.raises(Refused) as caught:
        read_mac(service_of(lambda *_: reply(b"no", status=b"401 Unauthorized")))
    assert caught.value.refusal.slug == "token-rejected"


@pytest.mark.parametrize("status", [404, 405, 429, 500, 503])
def test_other_statuses_pass_as_they_came(read_mac: ReadMac, status: int) -> None:
    assert read_mac(service_of(lambda *_: reply(b"page", status=b"%d X" % status))).status == status


def redirecting_to(place: bytes) -> Script:
    def respond(target: bytes, token: bytes | None) -> bytes:
        if target == b"/latest/meta-data/mac":
            return reply(b"", status=b"301 Moved", headers=b"Location: %s\r\n" % place)
        return reply(b"at " + target)

    return service_of(respond)


@pytest.mark.parametrize(
    "place", [b"/latest/meta-data/mac/", b"http://100.100.100.200/latest/meta-data/mac/"]
)
def test_a_redirect_by_a_trailing_slash_is_resolved_once(read_mac: ReadMac, place: bytes) -> None:
    assert read_mac(redirecting_to(place)).body == b"at /latest/meta-data/mac/"


@pytest.mark.parametrize(
    "place",
    [
        b"/latest/user-data",
        b"http://evil.example/latest/meta-data/mac/",
        b"//evil.example/latest/meta-data/mac/",
        b"/latest/meta-data/mac",
        b"",
    ],
)
def test_any_other_redirect_is_a_502(read_mac: ReadMac, place: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read_mac(redirecting_to(place))
    assert caught.value.refusal.slug == "upstream-redirect"


def test_a_redirect_is_asked_of_policy_first(read_mac: ReadMac) -> None:
    with pytest.raises(Refused):
        read_mac(redirecting_to(b"/latest/meta-data/mac/"), ItemClass.STATIC, lambda _: False)


@pytest.mark.parametrize(
    "raw",
    [
        reply(b"<!DOCTYPE html><form>log in</form>"),
        reply(b"  <HTML>log in"),
        reply(b"\x1f\x8b", headers=b"Content-Encoding: gzip\r\n"),
    ],
)
def test_what_something_else_says_is_a_502(read_mac: ReadMac, raw: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read_mac(service_of(lambda *_: raw))
    assert caught.value.refusal.slug == "upstream-foreign"


def test_user_data_may_be_a_web_page(read_mac: ReadMac) -> None:
    assert read_mac(service_of(lambda *_: reply(b"<html>")), ItemClass.USER_DATA).body == b"<html>"


def test_passthrough_adds_no_token() -> None:
    script = service_of(lambda target, token: reply(b"none" if token is None else token))

    async def use(reader: ServiceReader) -> Answer:
        return await reader.forward("GET", MAC, ItemClassifier(ALIBABA).classify(MAC), ())

    assert read(script, use).body == b"none"


def test_recorded_answers_are_judged_too(read_mac: ReadMac) -> None:
    with pytest.raises(Refused):
        read_mac(answers(reply(b"tok"), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", keep_open=False))
