"""One exchange with the service: whole answers only (ATTACKS 19)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from imds_proxy.errors import Refused
from imds_proxy.protocol.responses import Answer
from recorded import LIMITS, Script, answers, pool_of, recorded_service, reply
from told import Fetch, by_callback, by_task

Get = Callable[..., Answer]


@pytest.fixture(params=[by_task, by_callback])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """A GET, by a task or by a callback."""
    found: Fetch = request.param
    return found


@pytest.fixture
def get(fetch: Fetch) -> Get:
    """The answer of a service that plays these scripts."""

    def get(*scripts: Script) -> Answer:
        async def run() -> Answer:
            async with recorded_service(*scripts) as service:
                pool = pool_of(service)
                try:
                    return (await fetch(pool, "/latest/meta-data/mac")).answer
                finally:
                    pool.close()

        return asyncio.run(run())

    return get


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(reply(b"abc"), id="content-length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            id="chunked",
        ),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"abc"), id="informational first"),
        pytest.param(reply(b"abc", headers=b"Connection: close\r\n"), id="connection close"),
    ],
)
def test_every_framing_gives_the_same_body(get: Get, raw: bytes) -> None:
    assert get(answers(raw)).body == b"abc"


def test_a_body_that_ends_with_the_connection_may_be_cut_and_is_marked_so(get: Get) -> None:
    found = get(answers(b"HTTP/1.0 200 OK\r\n\r\nabc", keep_open=False))
    assert (found.body, found.complete) == (b"abc", False)
    assert get(answers(reply(b"abc"))).complete


def test_bytes_of_the_body_pass_untouched(get: Get) -> None:
    body = bytes(range(256)) + b"\r\n\r\n"
    assert get(answers(reply(body))).body == body


def test_headers_of_the_item_pass_and_others_do_not(get: Get) -> None:
    raw = reply(b"x", headers=b"Content-Type: text/plain\r\nSet-Cookie: a=b\r\nLocation: /x\r\n")
    assert get(answers(raw)).headers == ((b"Content-Type", b"text/plain"),)


@pytest.mark.parametrize(
    ("raw", "slug"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "upstream-broken", id="cut body"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "upstream-broken", id="cut chunk"
        ),
        pytest.param(b"\x16\x03\x01 not http\r\n\r\n", "upstream-broken", id="garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40_000, "upstream-broken", id="endless head"),
        pytest.param(b"HTTP/1.1 101 Switching\r\n\r\n", "upstream-broken", id="switching protocols"),
        pytest.param(b"HTTP/1.1 102 P\r\n\r\n" * 10, "upstream-broken", id="endless informational"),
        pytest.param(reply(b"a" * 200_000), "upstream-too-large", id="large body"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n"
            + b"a" * 32768
            + b"\r\n"
            + b"20000\r\n"
            + b"a" * 0x20000
            + b"\r\n0\r\n\r\n",
            "upstream-too-large",
            id="large chunked body",
        ),
        pytest.param(
            reply(b"abc") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            "upstream-broken",
            id="two answers",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "upstream-broken",
            id="two lengths",
        ),
        pytest.param(b"", "upstream-broken", id="closed unanswered"),
    ],
)
def test_what_is_not_one_whole_answer_is_refused(get: Get, raw: bytes, slug: str) -> None:
    with pytest.raises(Refused) as caught:
        get(answers(raw, keep_open=False))
    assert caught.value.refusal.slug == slug


def test_a_silent_service_is_given_up_after_the_read_timeout(get: Get) -> None:
    with pytest.raises(Refused) as caught:
        get(answers(b""))
    assert caught.value.refusal.slug == "deadline"


def test_each_question_has_the_whole_read_timeout(fetch: Fetch) -> None:
    async def run() -> float:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for wait in (0.0, 0.2, 0.2):
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(wait)
                writer.write(reply(b"value"))
            await reader.read()

        async with recorded_service(slow) as service:
            clock = asyncio.get_running_loop().time
            pool = pool_of(service, replace(LIMITS, read_timeout=0.3))
            for _ in range(3):
                assert (await fetch(pool, "/a")).answer.body == b"value"
            began = clock()
            with pytest.raises(Refused) as caught:
                await fetch(pool, "/a")
            assert caught.value.refusal.slug == "deadline"
            assert service.connections == 1
            return clock() - began

    assert 0.29 < asyncio.run(run()) < 0.5


def test_unsolicited_bytes_on_an_idle_connection_reach_nobody(fetch: Fetch) -> None:
    async def run() -> tuple[bytes, int]:
        split = asyncio.Event()

        async def splitting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply(b"first"))
            await split.wait()
            writer.write(reply(b"evil"))
            await reader.read()  # until the proxy drops it

        async with recorded_service(splitting, answers(reply(b"second"))) as service:
            pool = pool_of(service)
            assert (await fetch(pool, "/a")).answer.body == b"first"
            split.set()
            while pool.idle:
                await asyncio.sleep(0.001)
            second = (await fetch(pool, "/b")).answer.body
            pool.close()
            return second, service.connections

    assert asyncio.run(run()) == (b"second", 2)
