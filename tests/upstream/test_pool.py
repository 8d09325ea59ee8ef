"""The pool: keep-alive, limits, and the two things that are tried again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from imds_proxy.errors import Refused
from imds_proxy.upstream.pool import Pool
from recorded import LIMITS, answers, pool_of, recorded_service, reply

HEADERS = ((b"Host", b"100.100.100.200"),)
T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 20))


def test_requests_in_turn_share_one_connection() -> None:
    async def main() -> int:
        async with recorded_service(answers(*[reply(b"x")] * 5)) as service:
            pool = pool_of(service)
            for _ in range(5):
                await pool.get("GET", "/a", HEADERS)
            pool.close()
            return service.connections

    assert run(main()) == 1


def test_a_get_on_a_stale_connection_is_sent_again_on_a_fresh_one() -> None:
    async def main() -> bytes:
        async with recorded_service(
            answers(reply(b"one"), b"", keep_open=False), answers(reply(b"two"))
        ) as service:
            pool = pool_of(service)
            await pool.get("GET", "/a", HEADERS)
            body = (await pool.get("GET", "/a", HEADERS)).answer.body
            pool.close()
            return body

    assert run(main()) == b"two"


def test_an_answer_cut_in_the_middle_is_not_asked_for_again() -> None:
    async def main() -> int:
        cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        async with recorded_service(answers(reply(b"one"), cut, keep_open=False)) as service:
            pool = pool_of(service)
            await pool.get("GET", "/a", HEADERS)
            with pytest.raises(Refused) as caught:
                await pool.get("GET", "/a", HEADERS)
            assert caught.value.refusal.slug == "upstream-broken"
            return service.connections

    assert run(main()) == 1


def test_a_put_never_uses_a_pooled_connection() -> None:
    async def main() -> int:
        async with recorded_service(answers(reply(b"x"), reply(b"x"))) as service:
            pool = pool_of(service)
            await pool.get("GET", "/a", HEADERS)
            await pool.put("/latest/api/token", HEADERS)
            pool.close()
            return service.connections

    assert run(main()) == 2


def test_no_more_connections_than_the_limit_and_the_rest_wait_their_turn() -> None:
    async def main() -> tuple[int, int]:
        async with recorded_service(answers(*[reply(b"x")] * 50)) as service:
            pool = pool_of(service)
            done = await asyncio.gather(*(pool.get("GET", f"/{n}", HEADERS) for n in range(40)))
            pool.close()
            return service.connections, len(done)

    connections, done = run(main())
    assert connections <= LIMITS.connections
    assert done == 40


def test_waiting_for_a_free_connection_ends_with_the_patience() -> None:
    async def main() -> list[str]:
        async with recorded_service(answers(b"")) as service:
            pool = pool_of(service, replace(LIMITS, connections=1, patience=0.1, read_timeout=0.5))
            results = await asyncio.gather(
                *(pool.get("GET", "/a", HEADERS) for _ in range(3)), return_exceptions=True
            )
            return [error.refusal.slug for error in results if isinstance(error, Refused)]

    assert run(main()) == ["deadline"] * 3


def test_a_service_that_comes_back_within_the_patience_is_waited_for() -> None:
    async def main() -> bytes:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
        pool = Pool("127.0.0.1", port, replace(LIMITS, patience=5.0), asyncio.get_running_loop().time)
        asking = asyncio.get_running_loop().create_task(pool.get("GET", "/a", HEADERS))
        await asyncio.sleep(0.1)

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answers(reply(b"back"))(reader, writer)
            writer.close()

        server = await asyncio.start_server(play, "127.0.0.1", port)
        body = (await asking).answer.body
        pool.close()
        server.close()
        return body

    assert run(main()) == b"back"


def test_an_outage_is_answered_at_once_after_the_first_patience() -> None:
    async def main() -> float:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
        clock = asyncio.get_running_loop().time
        pool = Pool("127.0.0.1", port, replace(LIMITS, patience=0.2), clock)
        for _ in range(2):
            with pytest.raises(Refused):
                await pool.get("GET", "/a", HEADERS)
        await asyncio.sleep(0.1)
        started = clock()
        with pytest.raises(Refused) as caught:
            await pool.get("GET", "/a", HEADERS)
        assert caught.value.refusal.slug == "unreachable"
        return clock() - started

    assert run(main()) < 0.1


def test_calls_carry_the_mark_that_a_redirect_lets_through() -> None:
    async def main() -> list[int]:
        async with recorded_service(answers(reply(b"one")), answers(reply(b"two"))) as service:
            marks = []
            for mark in (None, 200):
                pool = pool_of(service)
                pool.mark = mark
                await pool.get("GET", "/a", HEADERS)
                (connection,) = pool._idle
                assert connection._transport is not None
                wire = connection._transport.get_extra_info("socket")
                marks.append(wire.getsockopt(socket.SOL_SOCKET, 36))
                pool.close()
            return marks

    assert run(main()) == [0, 200]
