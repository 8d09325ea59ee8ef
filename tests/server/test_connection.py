"""A caller's connection, as transcripts: what it sends, what it gets back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from imds_proxy.policy.caller import Caller, Identity
from imds_proxy.server.build import Daemon
from imds_proxy.server.connection import CallerConnection
from recorded import recorded_service, reply
from served import GET, PUT, KnownCaller, answer, conversation, served


class SlowlyKnownCaller(KnownCaller):
    """Attribution that has to look in a thread."""

    def begin(self, accepted: socket.socket, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        async def later() -> Caller:
            await asyncio.sleep(0.05)
            return Caller(Identity(1000, unit="test.service"))

        return later()


def test_requests_on_one_connection_are_answered_in_order() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Daemon) -> list[bytes]:
        writer.write(b"".join(GET % b"item-%d" % n for n in range(50)))
        return [(await answer(reader))[2] for _ in range(50)]

    assert conversation(talk) == [b"/latest/meta-data/item-%d" % n for n in range(50)]


@pytest.mark.parametrize("attribution", [KnownCaller(), SlowlyKnownCaller()])
def test_a_head_of_single_bytes_is_answered(attribution: KnownCaller) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Daemon) -> int:
        for byte in GET % b"mac":
            writer.write(bytes([byte]))
            await writer.drain()
        return (await answer(reader))[0]

    assert conversation(talk, attribution) == 200


def test_http_1_0_without_any_header_is_served_and_closed() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Daemon) -> bytes:
        writer.write(b"GET /latest/meta-data/mac HTTP/1.0\r\n\r\n")
        return await reader.read()

    raw = conversation(talk)
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert raw.endswith(b"\r\n\r\n/latest/meta-data/mac")


def test_after_bare_line_feeds_the_connection_is_closed_and_the_rest_never_read() -> None:
    async def talk(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon
    ) -> tuple[bytes, int]:
        writer.write(b"GET /latest/meta-data/mac HTTP/1.0\n\n" + GET % b"smuggled")
        raw = await reader.read()
        return raw, sum(daemon.events.counts.values())

    raw, requests = conversation(talk)
    assert raw.count(b"HTTP/1.1") == 1
    assert requests == 1


def test_a_client_that_half_closes_gets_all_that_it_asked() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Daemon) -> int:
        writer.write(GET % b"a" + GET % b"b" + GET % b"c")
        writer.write_eof()
        return (await reader.read()).count(b"HTTP/1.1 200")

    assert conversation(talk) == 3


def test_head_gets_the_length_of_the_body_without_it() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Daemon) -> bytes:
        writer.write(
            (GET % b"mac").replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        return await reader.read()

    raw = conversation(talk)
    assert b"Content-Length: 21\r\n" in raw
    assert raw.endswith(b"\r\n\r\n")


def test_a_put_that_expects_100_continue_is_told_to_go_on() -> None:
    async def talk(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Daemon
    ) -> tuple[bytes, bytes]:
        writer.write(PUT + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        going_on = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"0\r\n\r\n")
        return going_on, (await answer(reader))[2]

    assert conversation(talk) == (b"HTTP/1.1 100 Continue\r\n\r\n", b"tok==")


def test_a_refusal_names_its_slug_and_closes() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Daemon) -> bytes:
        writer.write(b"POST / HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n" + GET % b"never-read")
        return await reader.read()

    raw = conversation(talk)
    assert b"X-Imds-Proxy: method\r\n" in raw
    assert raw.count(b"HTTP/1.1") == 1


def test_a_caller_that_is_still_sending_reads_why_it_was_refused() -> None:
    """A close with bytes unread would be a reset, and a reset takes the answer away."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Daemon) -> bytes:
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)
        return await reader.read()

    assert conversation(talk).startswith(b"HTTP/1.1 431 ")


def test_a_refused_caller_that_does_not_close_is_closed() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon) -> int:
        writer.write(b"TRACE / HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 405 ")
        writer.write(b"GET / HTTP/1.1\r\n" * 1000)  # is not read
        (connection,) = daemon.register
        assert connection.idle
        for later in (0.5, 1.5):
            connection.check_times(daemon.shared.clock() + later)
            await asyncio.sleep(0.05)
            assert len(daemon.register) == (1 if later < 1 else 0)
        return daemon.events.refused

    assert conversation(talk) == 1


def test_half_a_head_is_given_up_after_the_head_timeout() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon) -> bytes:
        writer.write(b"GET /latest")
        await asyncio.sleep(0.05)
        for connection in daemon.register:
            assert isinstance(connection, CallerConnection)
            connection.check_times(daemon.shared.clock() + 11)
        return await reader.read()

    assert b"408" in conversation(talk).split(b"\r\n")[0]


def test_an_idle_connection_is_closed_after_its_time_without_a_word() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon) -> bytes:
        writer.write(GET % b"mac")
        await answer(reader)
        for connection in daemon.register:
            assert isinstance(connection, CallerConnection)
            connection.check_times(daemon.shared.clock() + 299)
            connection.check_times(daemon.shared.clock() + 301)
        return await reader.read()

    assert conversation(talk) == b""


def test_the_caller_at_its_limit_of_connections_loses_its_oldest_idle_one() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon) -> bytes:
        writer.write(GET % b"mac")
        await answer(reader)
        port = writer.get_extra_info("peername")[1]
        _, second = await asyncio.open_connection("127.0.0.1", port)
        closed = await reader.read()
        second.close()
        return closed

    assert conversation(talk, connections_per_caller=1) == b""


def test_between_the_requests_of_a_long_pipeline_others_have_their_turn() -> None:
    relayed = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")  # refused without waiting
    count = 400

    async def main() -> tuple[int, int]:
        async with recorded_service() as service, served(service) as (port, _):
            _, polite = other = await asyncio.open_connection("127.0.0.1", port)
            flooded, flood = await asyncio.open_connection("127.0.0.1", port)
            flood.write(b"".join(relayed % b"item-%d" % n for n in range(count)))
            polite.write(relayed % b"mac")
            assert (await answer(other[0]))[0] == 403
            flood.write_eof()
            soon = (await flooded.read(1 << 20)).count(b"HTTP/1.1 403")
            late = (await flooded.read()).count(b"HTTP/1.1 403")
            polite.close()
            flood.close()
            return soon, soon + late

    soon, all_of_them = asyncio.run(asyncio.wait_for(main(), 20))
    assert soon < count / 2
    assert all_of_them == count, "and all of them are answered"


def test_ten_thousand_pipelined_requests_unread_are_bounded_and_others_are_served() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon) -> int:
        flood = (GET % b"mac") * 10_000
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport
        writer.write(flood)
        port = writer.get_extra_info("peername")[1]
        other_reader, other = await asyncio.open_connection("127.0.0.1", port)
        other.write(GET % b"other")
        status, _, _ = await answer(other_reader)
        other.close()
        return status

    assert conversation(talk) == 200


def test_a_client_that_leaves_does_not_cancel_the_read_that_others_wait_for() -> None:
    async def main() -> bytes:
        go = asyncio.Event()

        async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"PUT"):
                    writer.write(reply(b"tok=="))
                else:
                    await go.wait()
                    writer.write(reply(b"value"))

        async with recorded_service(held) as service, served(service) as (port, _):
            _, leaver = await asyncio.open_connection("127.0.0.1", port)
            leaver.write(GET % b"mac")
            reader, stayer = await asyncio.open_connection("127.0.0.1", port)
            stayer.write(GET % b"mac")
            await asyncio.sleep(0.05)
            leaver.transport.abort()
            go.set()
            _, _, body = await answer(reader)
            stayer.close()
            return body

    assert asyncio.run(main()) == b"value"


def test_the_upstream_request_is_rebuilt_and_carries_nothing_of_the_callers() -> None:
    async def main() -> bytes:
        heads: list[bytes] = []

        async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                heads.append(head)
                writer.write(reply(b"tok==" if head.startswith(b"PUT") else b"x"))

        async with recorded_service(noting) as service, served(service) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"GET //latest///meta-data/%6dac HTTP/1.1\r\nHost: 100.100.100.200\r\nX-Mine: 1\r\n"
                b"User-Agent: me\r\nAccept-Encoding: gzip\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
            )
            await answer(reader)
            writer.close()
            return heads[-1]

    head = asyncio.run(main())
    assert head.startswith(b"GET /latest/meta-data/mac HTTP/1.1\r\n")
    for word in (b"X-Mine", b"User-Agent: me", b"gzip", b"h2c"):
        assert word not in head
