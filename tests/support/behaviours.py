"""How callers behave on a connection: each way sends the same questions and tells what came back."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from proxy import TOKEN_HEADER, TTL_HEADER
from served import answer

_RST_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Heard:
    """One answer: its status, the slug of the proxy's own (`stale` for an old one), the body."""

    status: int
    slug: str
    body: bytes

    @property
    def outcome(self) -> tuple[int, str]:
        return self.status, self.slug


Behaviour = Callable[[int, Sequence[str]], Awaitable[list[Heard]]]


def question(path: str, method: str = "GET", *headers: str) -> bytes:
    lines = (f"{method} /latest/{path} HTTP/1.1", "Host: 100.100.100.200", *headers, "", "")
    return "\r\n".join(lines).encode()


async def patient(port: int, paths: Sequence[str], *headers: str) -> list[Heard]:
    """A connection for each question."""

    async def ask(path: str) -> Heard:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(question(path, "GET", *headers))
            return await _heard(reader)
        finally:
            writer.transport.abort()

    return await asyncio.gather(*(ask(path) for path in paths))


async def hardened(port: int, paths: Sequence[str]) -> list[Heard]:
    """A token first, as the SDKs do."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(question("api/token", "PUT", f"{TTL_HEADER}: 600", "Content-Length: 0"))
    given = await _heard(reader)
    writer.transport.abort()
    assert given.status == 200, given
    return await patient(port, paths, f"{TOKEN_HEADER}: {given.body.decode()}")


async def pipelining(port: int, paths: Sequence[str]) -> list[Heard]:
    """All questions in one write; the answers come in their order."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"".join(question(path) for path in paths))
        return [await _heard(reader) for _ in paths]
    finally:
        writer.transport.abort()


async def half_closing(port: int, paths: Sequence[str]) -> list[Heard]:
    """Sends no more after its question, as `nc` does, and reads to the end."""

    async def ask(path: str) -> Heard:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(question(path))
            writer.write_eof()
            heard = await _heard(reader)
            assert await reader.read() == b""
            return heard
        finally:
            writer.transport.abort()

    return await asyncio.gather(*(ask(path) for path in paths))


async def heading(port: int, paths: Sequence[str]) -> list[Heard]:
    """HEAD: the heads of the answers, and no body."""

    async def ask(path: str) -> Heard:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(question(path, "HEAD", "Connection: close"))
            head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
            assert rest == b""
            return Heard(int(head.split()[1]), _slug(head), b"")
        finally:
            writer.transport.abort()

    return await asyncio.gather(*(ask(path) for path in paths))


async def sending_slowly(port: int, paths: Sequence[str]) -> list[Heard]:
    """A question in pieces, and the next one in the same piece as the last one's end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    whole = b"".join(question(path) for path in paths)
    try:
        for at in range(0, len(whole), 40):
            writer.write(whole[at : at + 40])
            await asyncio.sleep(0.01)
        return [await _heard(reader) for _ in paths]
    finally:
        writer.transport.abort()


async def reading_slowly(port: int, paths: Sequence[str]) -> list[Heard]:
    """Takes few bytes at a time, through a small window."""
    loop = asyncio.get_running_loop()

    async def ask(path: str) -> Heard:
        with socket.socket() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            wire.setblocking(False)
            await loop.sock_connect(wire, ("127.0.0.1", port))
            await loop.sock_sendall(wire, question(path, "GET", "Connection: close"))
            raw = b""
            while data := await loop.sock_recv(wire, 2048):
                raw += data
                await asyncio.sleep(0.002)
        head, _, body = raw.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        assert len(body) == length, "cut"
        return Heard(int(head.split()[1]), _slug(head), body)

    return await asyncio.gather(*(ask(path) for path in paths))


async def aborting(port: int, paths: Sequence[str]) -> list[Heard]:
    """Leaves by RST while its questions wait; what others hear who ask for the same at that time."""
    loop = asyncio.get_running_loop()
    wires = [socket.socket() for _ in paths]
    for wire, path in zip(wires, paths, strict=True):
        wire.setblocking(False)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        await loop.sock_connect(wire, ("127.0.0.1", port))
        await loop.sock_sendall(wire, question(path))
    staying = asyncio.ensure_future(patient(port, paths))
    await asyncio.sleep(0.01)
    for wire in wires:
        wire.close()
    return await staying


BEHAVIOURS: dict[str, Behaviour] = {
    "patient": patient,
    "hardened": hardened,
    "pipelining": pipelining,
    "half-closing": half_closing,
    "HEAD": heading,
    "sending slowly": sending_slowly,
    "reading slowly": reading_slowly,
    "aborting": aborting,
}


async def _heard(reader: asyncio.StreamReader) -> Heard:
    status, head, body = await answer(reader)
    return Heard(status, _slug(head), body)


def _slug(head: bytes) -> str:
    name = b"X-Imds-Proxy: "
    return next((line[len(name) :].decode() for line in head.split(b"\r\n") if line.startswith(name)), "")
