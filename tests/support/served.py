"""The daemon's parts in this process, before a service that echoes: for transcripts and fake callers."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import evidence
from imds_proxy.config import Config, parse_address
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.policy.rules import Rate
from imds_proxy.server.build import Daemon, boottime, build
from imds_proxy.server.connection import CallerConnection
from imds_proxy.server.log import Log
from recorded import Script, recorded_service, reply

GET = b"GET /latest/meta-data/%s HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n"
PUT = (
    b"PUT /latest/api/token HTTP/1.1\r\nHost: 100.100.100.200\r\n"
    b"X-aliyun-ecs-metadata-token-ttl-seconds: 60\r\n"
)


PLENTY = {"hits": Rate(1e6, 1e6), "misses": Rate(1e6, 1e6), "upstream": Rate(1e6, 1e6)}


class TurnedClock:
    """The machine's clock, that a test turns on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return boottime() + self.ahead


class KnownCaller:
    """Attribution that always knows."""

    epoch = 0

    async def holders(self, accepted: socket.socket, peer: object) -> tuple[Caller, ...]:
        return ()

    def familiar(self, accepted: int, peer: bytes, local: bytes | None) -> Caller | None:
        return None

    def begin(self, accepted: socket.socket, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        return Caller(Identity(1000, unit="test.service"), process=Process(7, "/usr/bin/test"))


class HasPort(Protocol):
    @property
    def port(self) -> int: ...


async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that gives a token, and the target as the body of every item."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        writer.write(reply(b"tok==" if method == b"PUT" else target))


@asynccontextmanager
async def served(
    service: HasPort,
    attribution: KnownCaller | None = None,
    settings: dict[str, Any] | None = None,
    clock: Callable[[], float] = boottime,
    **limits: Any,
) -> AsyncIterator[tuple[int, Daemon]]:
    """The daemon at a port of its own, before a service at `service.port` of loopback."""
    config = Config()
    upstream = dataclasses.replace(config.upstream, address=parse_address(f"127.0.0.1:{service.port}"))
    config = dataclasses.replace(
        config,
        upstream=upstream,
        limits=dataclasses.replace(config.limits, **{**PLENTY, **limits}),
        state=Path("/nonexistent"),
        **(settings or {}),
    )
    text = io.StringIO()
    log = Log("json", text)
    daemon = build(config, log, clock)
    shared = dataclasses.replace(daemon.shared, attribution=attribution or KnownCaller())
    server = await asyncio.get_running_loop().create_server(lambda: CallerConnection(shared), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], daemon
    finally:
        server.close()
        for connection in daemon.register:
            connection.evict()
        daemon.pool.close()
        daemon.attribution.close()
        log.close()
        evidence.keep("log", text.getvalue())
        await asyncio.sleep(0)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Daemon], Awaitable[Any]]


def conversation(
    talk: Talk,
    attribution: KnownCaller | None = None,
    settings: dict[str, Any] | None = None,
    script: Script = echoing,
    **limits: Any,
) -> Any:
    """What `talk` makes of one connection to the daemon."""

    async def main() -> Any:
        async with (
            recorded_service(script) as service,
            served(service, attribution, settings, **limits) as (port, daemon),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return await asyncio.wait_for(talk(reader, writer, daemon), 10)
            finally:
                writer.transport.abort()

    return asyncio.run(main())


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, head and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0)
    return int(head.split()[1]), head, await reader.readexactly(length)
