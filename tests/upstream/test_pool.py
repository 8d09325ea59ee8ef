"""The pool: keep-alive, limits, and the two things that are tried again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from imds_proxy.errors import Refused
from imds_proxy.policy.rules import Rate
from imds_proxy.upstream.gate import OURS, UpstreamGate
from imds_proxy.upstream.pool import Pool, PoolLimits
from recorded import LIMITS, RecordedService, Script, answers, pool_of, recorded_service, reply
from told import HEADERS, Ear, Fetch, by_callback, by_task, told

T = TypeVar("T")


@pytest.fixture(params=[by_task, by_callback])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """A GET, by a task or by a callback."""
    found: Fetch = request.param
    return found


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 20))


def test_requests_in_turn_share_one_connection(fetch: Fetch) -> None:
    async def main() -> int:
        async with recorded_service(answers(*[reply(b"x")] * 5)) as service:
            pool = pool_of(service)
            for _ in range(5):
                await fetch(pool, "/a")
            pool.close()
            return service.connections

    assert run(main()) == 1


def test_a_get_on_a_stale_connection_is_sent_again_on_a_fresh_one(fetch: Fetch) -> None:
    async def main() -> bytes:
        async with recorded_service(
            answers(reply(b"one"), b"", keep_open=False), answers(reply(b"two"))
        ) as service:
            pool = pool_of(service)
            await fetch(pool, "/a")
            body = (await fetch(pool, "/a")).answer.body
            pool.close()
            return body

    assert run(main()) == b"two"


def test_an_answer_cut_in_the_middle_is_not_asked_for_again(fetch: Fetch) -> None:
    async def main() -> int:
        cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        async with recorded_service(answers(reply(b"one"), cut, keep_open=False)) as service:
            pool = pool_of(service)
            await fetch(pool, "/a")
            with pytest.raises(Refused) as caught:
                await fetch(pool, "/a")
            assert caught.value.refusal.slug == "upstream-broken"
            return service.connections

    assert run(main()) == 1


def test_a_put_never_uses_a_pooled_connection(fetch: Fetch) -> None:
    async def main() -> int:
        async with recorded_service(answers(reply(b"x"), reply(b"x"))) as service:
            pool = pool_of(service)
            await fetch(pool, "/a")
            await pool.put("/latest/api/token", HEADERS)
            pool.close()
            return service.connections

    assert run(main()) == 2


def test_no_more_connections_than_the_limit_and_the_rest_wait_their_turn(fetch: Fetch) -> None:
    async def main() -> tuple[int, int]:
        async with recorded_service(answers(*[reply(b"x")] * 50)) as service:
            pool = pool_of(service)
            await fetch(pool, "/first")
            done = await asyncio.gather(*(fetch(pool, f"/{n}") for n in range(40)))
            pool.close()
            return service.connections, len(done)

    connections, done = run(main())
    assert connections <= LIMITS.connections
    assert done == 40


def test_waiting_for_a_free_connection_ends_with_the_patience(fetch: Fetch) -> None:
    async def main() -> list[str]:
        async with recorded_service(answers(b"")) as service:
            pool = pool_of(service, replace(LIMITS, connections=1, patience=0.1, read_timeout=0.5))
            results = await asyncio.gather(*(fetch(pool, "/a") for _ in range(3)), return_exceptions=True)
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


def echoing(*, close: bool = False, hold: asyncio.Event | None = None) -> tuple[Script, list[str]]:
    """Answers each GET with its target, once `hold` is set; and the targets as they came."""
    came: list[str] = []
    headers = b"Connection: close\r\n" if close else b""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            came.append(target.decode())
            if hold is not None:
                await hold.wait()
            writer.write(reply(target, headers=headers))
            if close:
                return

    return script, came


async def with_one_connection(pool: Pool) -> None:
    """From now on the pool has one connection that rests."""
    pool._idle.append(await pool._dial())
    assert pool.ready


ONE = replace(LIMITS, connections=1)


@pytest.mark.parametrize("close", [False, True], ids=["kept connections", "closed connections"])
def test_who_asks_is_answered_in_turn_by_whichever_way_and_every_place_is_free_again(close: bool) -> None:
    async def main() -> None:
        script, came = echoing(close=close)
        async with recorded_service(script) as service:
            pool = pool_of(service, ONE)
            await with_one_connection(pool)
            ears = []
            tasks = []
            for number in range(0, 40, 2):
                assert pool.ready
                ears.append(Ear())
                pool.ask(f"/{number}", HEADERS, ears[-1])
                tasks.append(asyncio.create_task(by_task(pool, f"/{number + 1}")))
                await asyncio.sleep(0)
            found = [(await ear.hear()).answer.body for ear in ears]
            assert found == [b"/%d" % number for number in range(0, 40, 2)]
            assert [one.answer.body for one in await asyncio.gather(*tasks)] == [
                b"/%d" % number for number in range(1, 40, 2)
            ]
            assert came == [f"/{number}" for number in range(40)]
            assert (pool._open, len(pool._waiting)) == (0, 0)
            assert service.connections == (40 if close else 1)
            pool.close()

    run(main())


def test_who_asks_and_finds_no_place_is_told_so_in_time_while_all_places_hang() -> None:
    async def main() -> None:
        hold = asyncio.Event()
        script, came = echoing(hold=hold)
        async with recorded_service(script) as service:
            clock = asyncio.get_running_loop().time
            pool = pool_of(service, replace(ONE, patience=0.1, read_timeout=5.0))
            await with_one_connection(pool)
            hanging, began = Ear(), clock()
            pool.ask("/hangs", HEADERS, hanging)
            late = [asyncio.create_task(told(lambda ear: pool.ask("/late", HEADERS, ear))) for _ in range(3)]
            for one in late:
                with pytest.raises(Refused) as caught:
                    await one
                assert caught.value.refusal.slug == "deadline"
            assert 0.1 <= clock() - began < 0.3
            hold.set()
            assert (await hanging.hear()).answer.body == b"/hangs"
            assert (await by_callback(pool, "/next")).answer.body == b"/next"
            assert came == ["/hangs", "/next"]
            assert (pool._open, len(pool._waiting)) == (0, 0)
            pool.close()

    run(main())


def test_who_is_told_that_it_is_late_may_ask_again_and_makes_nobody_later() -> None:
    async def main() -> None:
        hold = asyncio.Event()
        script, _ = echoing(hold=hold)
        async with recorded_service(script) as service:
            clock = asyncio.get_running_loop().time
            pool = pool_of(service, replace(ONE, patience=0.1, read_timeout=5.0))
            await with_one_connection(pool)
            pool.ask("/hangs", HEADERS, Ear())
            again, second = Ear(), Ear()
            pool.ask("/first", HEADERS, lambda _: pool.ask("/again", HEADERS, again))
            await asyncio.sleep(0.02)
            asked = clock()
            pool.ask("/second", HEADERS, second)
            for ear in (second, again):
                with pytest.raises(Refused):
                    await ear.hear()
                assert clock() - asked < (0.15 if ear is second else 0.4)
            hold.set()
            pool.close()

    run(main())


def test_a_place_that_is_free_goes_to_the_next_whatever_becomes_of_those_who_are_late() -> None:
    async def main() -> None:
        hold = asyncio.Event()
        script, _ = echoing(hold=hold)
        async with recorded_service(script) as service:
            now = 0.0
            pool = Pool("127.0.0.1", service.port, ONE, lambda: now)
            await with_one_connection(pool)

            def fail(_: object) -> None:
                raise ZeroDivisionError

            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            first, last = Ear(), Ear()
            pool.ask("/first", HEADERS, first)
            pool.ask("/late", HEADERS, fail)
            now = LIMITS.patience
            pool.ask("/last", HEADERS, last)
            hold.set()
            assert (await first.hear()).answer.body == b"/first"
            assert (await last.hear()).answer.body == b"/last"
            assert (pool._open, len(pool._waiting)) == (0, 0)
            pool.close()

    run(main())


def test_a_question_to_a_stale_connection_keeps_its_place() -> None:
    async def main() -> None:
        async def stale(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply(b"/zero"))
            await reader.readuntil(b"\r\n\r\n")

        script, came = echoing()
        async with recorded_service(stale, script) as service:
            pool = pool_of(service, ONE)
            await by_callback(pool, "/zero")
            ears = [Ear() for _ in range(3)]
            for number, ear in enumerate(ears):
                pool.ask(f"/{number}", HEADERS, ear)
            assert [(await ear.hear()).answer.body for ear in ears] == [b"/0", b"/1", b"/2"]
            assert came == ["/0", "/1", "/2"]
            assert (pool._open, service.connections) == (0, 2)
            pool.close()

    run(main())


def test_what_cannot_be_asked_leaves_the_pool_as_it_was() -> None:
    async def main() -> None:
        script, _ = echoing()
        async with recorded_service(script) as service:
            pool = pool_of(service, ONE)
            await with_one_connection(pool)
            with pytest.raises(ValueError, match="request line"):
                pool.ask("/a HTTP/1.1\r\nX: ", HEADERS, Ear())
            assert (pool._open, pool.idle, pool.ready) == (0, 1, True)
            assert (await by_callback(pool, "/a")).answer.body == b"/a"
            pool.close()

    run(main())


def gated(service: RecordedService, limits: PoolLimits) -> tuple[Pool, UpstreamGate]:
    clock = asyncio.get_running_loop().time
    gate = UpstreamGate(Rate(1000, 100), 0.5, clock)
    return Pool("127.0.0.1", service.port, limits, clock, gate), gate


def test_a_throttled_call_is_tried_again_in_a_turn_of_its_own(fetch: Fetch) -> None:
    async def main() -> None:
        throttled = reply(b"slow down", status=b"429 Too Many Requests")
        async with recorded_service(answers(throttled, throttled, reply(b"value"))) as service:
            pool, gate = gated(service, ONE)
            turns: list[object] = []
            turn = gate.turn

            async def counted(caller: object, until: float) -> None:
                turns.append(caller)
                await turn(caller, until)

            gate.turn = counted  # type: ignore[method-assign]
            assert (await fetch(pool, "/a")).answer.body == b"value"
            assert turns == [OURS, OURS]
            assert gate.rate < 300
            assert pool._open == 0
            pool.close()

    run(main())


def test_an_overload_seen_by_a_call_that_waited_for_its_place_is_news() -> None:
    """It was sent after the rate was halved, though it was asked for before."""

    async def main() -> None:
        overloaded = reply(b"", status=b"503 Service Unavailable")
        async with recorded_service(answers(overloaded, overloaded)) as service:
            pool, gate = gated(service, ONE)
            await with_one_connection(pool)
            ears = [Ear(), Ear()]
            for ear in ears:
                pool.ask("/a", HEADERS, ear)
            assert [(await ear.hear()).answer.status for ear in ears] == [503, 503]
            assert gate.rate < 300
            pool.close()

    run(main())


def test_no_answer_to_another_reaches_who_waits_for_the_same_connection() -> None:
    """Two answers to one question: neither is given to anybody, and the next asks on a fresh connection."""

    async def main() -> None:
        async def doubled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply(b"alice's") + reply(b"evil"))
            await reader.read()

        async with recorded_service(doubled, answers(reply(b"bob's"))) as service:
            pool = pool_of(service, ONE)
            await with_one_connection(pool)
            alice, bob = Ear(), Ear()
            pool.ask("/alice", HEADERS, alice)
            pool.ask("/bob", HEADERS, bob)
            with pytest.raises(Refused) as caught:
                await alice.hear()
            assert caught.value.refusal.slug == "upstream-broken"
            assert (await bob.hear()).answer.body == b"bob's"
            assert service.connections == 2
            pool.close()

    run(main())


def test_an_answer_that_comes_after_its_time_reaches_nobody() -> None:
    async def main() -> None:
        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.1)
            writer.write(reply(b"too late"))
            await reader.read()

        async with recorded_service(slow, answers(reply(b"bob's"))) as service:
            pool = pool_of(service, replace(ONE, read_timeout=0.05))
            await with_one_connection(pool)
            alice, bob = Ear(), Ear()
            pool.ask("/alice", HEADERS, alice)
            pool.ask("/bob", HEADERS, bob)
            with pytest.raises(Refused) as caught:
                await alice.hear()
            assert caught.value.refusal.slug == "deadline"
            assert (await bob.hear()).answer.body == b"bob's"
            await asyncio.sleep(0.1)
            assert (len(alice.heard), len(bob.heard), pool._open) == (1, 1, 0)
            pool.close()

    run(main())
