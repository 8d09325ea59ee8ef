"""A service that answers with recorded bytes: each connection plays one script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from imds_proxy.upstream.pool import Pool, PoolLimits

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIMITS = PoolLimits(connections=4, connect_timeout=0.5, read_timeout=1.0, patience=0.5, max_body=100_000)


@dataclass
class RecordedService:
    """Plays `scripts` in turn, the last one for all further connections; keeps what it was sent."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0


@asynccontextmanager
async def recorded_service(*scripts: Script) -> AsyncIterator[RecordedService]:
    state = RecordedService()
    writers: list[asyncio.StreamWriter] = []
    playing: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        playing.add(asyncio.get_running_loop().create_task(play(reader, writer)))

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = scripts[min(state.connections, len(scripts) - 1)]
        state.connections += 1
        writers.append(writer)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)
        await server.wait_closed()


def answers(*replies: bytes, keep_open: bool = True) -> Script:
    """Each request on the connection gets the next reply; then it closes, or holds still."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
        if keep_open:
            await reader.read()

    return script


def reply(body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers, len(body), body)


def pool_of(service: RecordedService, limits: PoolLimits = LIMITS) -> Pool:
    return Pool("127.0.0.1", service.port, limits, asyncio.get_running_loop().time)
