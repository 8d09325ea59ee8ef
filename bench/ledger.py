#!/usr/bin/env python3
"""What the ledger costs the request path: the daemon's own parts in this process, 100,000 requests a second.

Requests enter where the event loop hands over a connection's bytes and end where the answer would be written,
so the kernel's part, the larger one, is left out and the ledger's share is shown larger than it is. The same
second is simulated in turn with the ledger writing to disk and without. CPU time is of the whole process,
the ledger's thread included; of a busy machine the least of the repeats says most. The share is what the
ledger itself used (its thread, and handing over on the event loop) of what the requests did.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from imds_proxy.config import Config, Ledger, parse_address
from imds_proxy.emulator.service import Emulator
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.policy.rules import Rate
from imds_proxy.server.bookkeeping import Bookkeeper, open_ledger
from imds_proxy.server.build import Daemon, build
from imds_proxy.server.connection import CallerConnection
from imds_proxy.server.log import Log
from imds_proxy.server.state import boot_id

CALLERS = 20
ITEMS = ("instance-id", "mac", "region-id", "zone-id", "hostname")
HEAD = "GET /latest/meta-data/{} HTTP/1.1\r\nHost: 100.100.100.200\r\nUser-Agent: bench/1\r\n\r\n"
TICK = 0.005  # seconds between bursts of the simulated load
PLENTY = Rate(1e9, 1e9)


class _Wire:
    """A transport that takes answers and counts them."""

    def __init__(self) -> None:
        self.answers = 0

    def write(self, data: bytes) -> None:
        self.answers += 1

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name.endswith("name") else None

    def close(self) -> None:
        """It stays open."""


@dataclass(frozen=True)
class Cost:
    """Requests a second, CPU microseconds of the process for each, and of these the ledger's own."""

    rate: float
    cpu: float
    ledger: float


class _Known:
    """Attribution that has its callers by heart, in turn."""

    epoch = 0

    def __init__(self) -> None:
        self._next = 0

    def begin(self, accepted: object, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        self._next += 1
        number = self._next
        return Caller(
            Identity(number, unit=f"app-{number}.service"), process=Process(number, f"/opt/app-{number}")
        )

    async def holders(self, accepted: object, peer: object) -> tuple[Caller, ...]:
        return ()


@asynccontextmanager
async def daemon(directory: Path, enabled: bool, upstream: str) -> AsyncIterator[tuple[Daemon, Bookkeeper]]:
    """The daemon's parts, with a ledger that writes or with none."""
    config = Config()
    config = replace(
        config,
        upstream=replace(config.upstream, address=parse_address(upstream)),
        limits=replace(config.limits, hits=PLENTY, misses=PLENTY, upstream=PLENTY),
        state=directory,
        attribution="procfs",
        ledger=Ledger(enabled=enabled),
    )
    log = Log("json", io.StringIO())
    made = build(config, log)
    made = replace(made, shared=replace(made.shared, attribution=cast(Any, _Known())))
    books = Bookkeeper(made.events, open_ledger(config, boot_id(), log), lambda: config)
    try:
        yield made, books
    finally:
        books.close()
        made.attribution.close()
        made.pool.close()
        log.close()


async def connected(made: Daemon) -> list[tuple[CallerConnection, list[bytes], _Wire]]:
    """Connections whose caller is known, and whose items are in the cache."""
    heads = [HEAD.format(item).encode() for item in ITEMS]
    found = []
    for _ in range(CALLERS):
        connection, wire = CallerConnection(made.shared), _Wire()
        connection.connection_made(cast(asyncio.Transport, wire))
        for head in heads * 2:
            before = wire.answers
            connection.data_received(head)
            while wire.answers == before:
                await asyncio.sleep(0.001)
        found.append((connection, heads, wire))
    return found


class _Counted:
    """The CPU seconds that a daemon's ledger used: its thread's, and those of handing over."""

    def __init__(self, books: Bookkeeper) -> None:
        self._note, self._handing = books.note, 0.0
        books.note = self._timed  # type: ignore[method-assign]

    def _timed(self, *, stopping: bool = False) -> None:
        before = time.thread_time()
        self._note(stopping=stopping)
        self._handing += time.thread_time() - before

    def seconds(self) -> float:
        """So far."""
        threads = [one.ident for one in threading.enumerate() if one.name == "ledger" and one.ident]
        clocks = [time.pthread_getcpuclockid(ident) for ident in threads]
        return self._handing + sum(time.clock_gettime(clock) for clock in clocks)


async def simulated(
    connections: list[tuple[CallerConnection, list[bytes], _Wire]],
    ledger: _Counted,
    rate: int,
    seconds: float,
) -> Cost:
    """Simulates that many requests a second."""
    own = ledger.seconds()
    before = sum(wire.answers for _, _, wire in connections)
    begin, used, sent = time.monotonic(), time.process_time(), 0
    while (passed := time.monotonic() - begin) < seconds:
        owed = int(passed * rate) - sent
        for number in range(owed):
            connection, heads, _ = connections[(sent + number) % CALLERS]
            connection.data_received(heads[(sent + number) // CALLERS % len(heads)])
        sent += owed
        await asyncio.sleep(TICK)
    used, passed = time.process_time() - used, time.monotonic() - begin
    answered = sum(wire.answers for _, _, wire in connections) - before
    if answered != sent:
        raise RuntimeError(f"{sent} requests and {answered} answers")
    own = ledger.seconds() - own
    return Cost(answered / passed, used / answered * 1e6, own / answered * 1e6)


async def measure(rate: int, seconds: float, repeats: int) -> dict[str, list[Cost]]:
    """Costs with the ledger `on` and `off`, in turn."""
    found: dict[str, list[Cost]] = {"on": [], "off": []}
    with Emulator() as service, tempfile.TemporaryDirectory() as place:
        upstream = f"{service.address[0]}:{service.address[1]}"
        async with (
            daemon(Path(place, "on"), True, upstream) as (with_ledger, writing),
            daemon(Path(place, "off"), False, upstream) as (without, idle),
        ):
            sides = {
                "on": (await connected(with_ledger), writing, _Counted(writing)),
                "off": (await connected(without), idle, _Counted(idle)),
            }
            for number in range(repeats + 1):
                for name, (connections, books, counted) in sides.items():
                    task = asyncio.get_running_loop().create_task(books.run())
                    cost = await simulated(connections, counted, rate, seconds)
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                    if number:  # the first is a warm-up
                        found[name].append(cost)
    return found


def share_of(costs: list[Cost]) -> float:
    """What the ledger used to what the requests used: the median of the repeats."""
    return statistics.median(cost.ledger / (cost.cpu - cost.ledger) for cost in costs)


def main() -> int:
    """Measures and prints. Exit code 1 where it fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=100_000, metavar="N", help="requests a second")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each repeat")
    parser.add_argument("--repeats", type=int, default=9, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.rate, arguments.seconds, arguments.repeats))
    figures: dict[str, float] = {}
    for name, costs in found.items():
        rate = statistics.median(cost.rate for cost in costs)
        figures |= {f"rate_{name}": rate, f"cpu_us_{name}": min(cost.cpu for cost in costs)}
        print(
            f"ledger {name:<3}  {rate:>9.0f} requests/s  {figures[f'cpu_us_{name}']:.3f} µs of CPU a request"
        )
    figures["share"] = share_of(found["on"])
    print(f"of it the ledger's own: {figures['share']:.2%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
