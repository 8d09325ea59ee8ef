"""A service and the daemon before it in one time, that a test turns on; and callers on real connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from imds_proxy.config import Config
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from imds_proxy.server.build import Daemon
from served import TurnedClock, answer, served

ROLE = "meta-data/ram/security-credentials/demo-role"
LISTING = "meta-data/ram/security-credentials/"


@dataclass(frozen=True)
class Given:
    """One answer: status, slug of the proxy's own ones (`stale` for an old one), body, seconds it took."""

    status: int
    slug: str
    body: bytes
    took: float

    @property
    def expires(self) -> float:
        """When the credentials in it end, Unix seconds."""
        text = json.loads(self.body)["Expiration"]
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Client:
    """One caller on one connection, opened again where it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, item: str, patience: float = 5.0) -> Given:
        """Raises TimeoutError for a call that is not answered."""
        began = time.monotonic()
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"GET /latest/{item} HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n".encode())
        status, head, body = await asyncio.wait_for(answer(reader), patience)
        slug = next((line[14:] for line in head.split(b"\r\n") if line.startswith(b"X-Imds-Proxy: ")), b"")
        return Given(status, slug.decode(), body, time.monotonic() - began)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None


@dataclass
class Bench:
    """The service, the daemon, and their one clock."""

    service: Emulator
    daemon: Daemon
    port: int
    clock: TurnedClock
    opened: list[Client] = field(default_factory=list)

    def turn(self, seconds: float) -> None:
        """Time goes on for both; what the daemon does each second is done once."""
        self.clock.ahead += seconds
        self.service.patch(clock_offset=self.clock.ahead)
        self.daemon.shared.service.cache.tend()

    def clients(self, count: int) -> list[Client]:
        found = [Client(self.port) for _ in range(count)]
        self.opened += found
        return found

    def calls(self) -> tuple[int, int]:
        """Token PUTs and reads that reached the service."""
        counts = self.service.counters()
        return counts.token_puts, counts.v1_gets + counts.v2_gets


@dataclass(frozen=True)
class _At:
    port: int


@asynccontextmanager
async def turned(emulator: Settings, settings: dict[str, Any] | None = None) -> AsyncIterator[Bench]:
    """With the default limits, those of upstream calls among them."""
    limits, clock = Config().limits, TurnedClock()
    with Emulator(settings=emulator) as service:
        at = _At(service.address[1])
        rates: dict[str, Any] = {"hits": limits.hits, "misses": limits.misses, "upstream": limits.upstream}
        async with served(at, settings=settings, clock=clock, **rates) as (port, daemon):
            bench = Bench(service, daemon, port, clock)
            try:
                yield bench
            finally:
                for client in bench.opened:
                    client.close()
                await asyncio.sleep(0.01)
