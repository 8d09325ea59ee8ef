#!/usr/bin/env python3
"""Guards the hot path: its CPU time in units of a fixed piece of Python, in turns in the same run.

No absolute time: each is the least of many short turns, so that neither a slow nor a noisy machine counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imds_proxy.config import Config, parse_address
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.policy.rules import Rate
from imds_proxy.server.build import build
from imds_proxy.server.connection import CallerConnection
from imds_proxy.server.log import Log
from upstream import Service

HEAD = b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: 100.100.100.200\r\nUser-Agent: guard\r\n\r\n"
_TURNS, _REQUESTS = 400, 200


class _Transport:
    """Where a connection writes: what, and how often."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 80) if name != "socket" else None

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nothing."""

    close = abort


class _Known:
    """Attribution that knows everybody."""

    epoch = 0

    def familiar(self, *_: object) -> None:
        return None

    def begin(self, *_: object) -> Caller:
        return Caller(Identity(1000, unit="guard.service"), process=Process(7, "/usr/bin/guard"))

    async def holders(self, *_: object) -> tuple[Caller, ...]:
        return ()


class _Piece:
    """The unit: calls, look-ups, comparisons and counts of about the kind that a request needs."""

    def __init__(self) -> None:
        self.known, self.level, self.seen, self.count = {HEAD: 1.0}, 0.0, 0.0, 0
        written: list[bytes] = []
        self.write = written.append

    def __call__(self, data: bytes) -> None:
        found = self.known.get(data)
        if found is not None:
            now = time.monotonic()
            if self.take(now):
                self.count += 1
                self.write(data)

    def take(self, now: float) -> bool:
        if now > self.seen:
            self.level = min(1e6, self.level + (now - self.seen) * 1e6)
            self.seen = now
        self.level -= 1
        return True


def least(turns: int, *pieces: Callable[[], None]) -> list[float]:
    """The least CPU seconds of each piece, in turns."""
    found = [float("inf")] * len(pieces)
    for _ in range(turns):
        for number, piece in enumerate(pieces):
            began = time.thread_time()
            piece()
            found[number] = min(found[number], time.thread_time() - began)
    return found


async def measure() -> float:
    """CPU of a request that is known by heart, in units of the piece."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Service, "127.0.0.1", 0)
    config, plenty = Config(), Rate(1e9, 1e9)
    address = parse_address(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    config = dataclasses.replace(
        config,
        upstream=dataclasses.replace(config.upstream, address=address),
        limits=dataclasses.replace(config.limits, hits=plenty, misses=plenty, upstream=plenty),
        state=Path("/nonexistent"),
        attribution="procfs",
    )
    log = Log("json", io.StringIO())
    daemon = build(config, log)
    shared = dataclasses.replace(daemon.shared, attribution=_Known())
    connection, transport = CallerConnection(shared), _Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]  # a stand-in
    for number in range(1, 5):
        connection.data_received(HEAD)
        while len(transport.written) < number:
            await asyncio.sleep(0.001)
    assert all(one.startswith(b"HTTP/1.1 200 ") for one in transport.written), transport.written
    piece = _Piece()

    def requests() -> None:
        for _ in range(_REQUESTS):
            connection.data_received(HEAD)
        transport.written.clear()

    def pieces() -> None:
        for _ in range(_REQUESTS):
            piece(HEAD)

    hot, unit = least(_TURNS, requests, pieces)
    connection.connection_lost(None)
    daemon.pool.close()
    daemon.attribution.close()
    server.close()
    log.close()
    return hot / unit


if __name__ == "__main__":
    print(f"{asyncio.run(measure()):.3f}")
    sys.exit(0)
