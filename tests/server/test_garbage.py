"""Garbage from upstream (ATTACKS 19): a 502 or 503 for who asked, never others' bytes, never cached."""

from __future__ import annotations

import asyncio

import pytest

from imds_proxy.server.build import Daemon
from recorded import Script, reply
from served import GET, answer, conversation

EVIL = reply(b"evil")
GARBAGE = {
    "redirect elsewhere": reply(b"", status=b"302 Found", headers=b"Location: http://evil/\r\n"),
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    "body over the limit": b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n" + b"a" * 5_000_000,
    "chunked over the limit": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + (b"100000\r\n" + b"a" * 0x100000 + b"\r\n") * 5,
    "length too long": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    "length too short": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nlonger",
    "cut chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nabc",
    "login page": reply(b"<!doctype html><title>Sign in</title>"),
    "gzip": reply(b"\x1f\x8b\x08bomb", headers=b"Content-Encoding: gzip\r\n"),
    "two answers": reply(b"mine") + EVIL,
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "status only": b"HTTP/1.1 200\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + EVIL,
}


def once(garbage: bytes) -> Script:
    """A service that answers the first GET of `bad` with garbage and closes, all else with its target."""
    spent = False

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal spent
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n")[0].split(b" ")
            if method == b"PUT":
                writer.write(reply(b"tok=="))
            elif target.endswith(b"/bad") and not spent:
                spent = True
                writer.write(garbage)
                await writer.drain()
                return
            else:
                writer.write(reply(target))

    return script


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_reaches_nobody_and_is_not_remembered(name: str) -> None:
    async def talk(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon
    ) -> tuple[int, bytes, bytes]:
        writer.write(GET % b"bad")
        status, _, _ = await answer(reader)
        port = writer.get_extra_info("peername")[1]
        other_reader, other = await asyncio.open_connection("127.0.0.1", port)
        other.write(GET % b"mine")
        _, _, mine = await answer(other_reader)
        other.close()
        writer.write(GET % b"bad")
        _, _, again = await answer(reader)
        return status, mine, again

    status, mine, again = conversation(talk, script=once(GARBAGE[name]))
    assert status in (502, 503)
    assert mine == b"/latest/meta-data/mine"
    assert again == b"/latest/meta-data/bad"


def test_a_dripping_answer_is_given_up_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"PUT"):
                writer.write(reply(b"tok=="))
                continue
            for byte in reply(b"slow" * 100):
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

    async def talk(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, daemon: Daemon
    ) -> tuple[int, float]:
        clock = asyncio.get_running_loop().time
        started = clock()
        writer.write(GET % b"mac")
        status, _, _ = await answer(reader)
        return status, clock() - started

    status, seconds = conversation(talk, script=drip)
    assert status == 503
    assert seconds < 1.0
