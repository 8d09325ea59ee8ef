"""Callers that poll, as one user: each on a connection of its own, each item once in a while.

A program: `pollers.py PORT UID CALLERS SECONDS EVERY ITEM...`. Prints how many got which status for which
item, the slowest answer in seconds, and what was not answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

_PATIENCE = 5.0  # seconds


class Polling:
    def __init__(self, port: int, items: Sequence[str]) -> None:
        self._port, self._items = port, items
        self.statuses: dict[str, Counter[int]] = {item: Counter() for item in items}
        self.worst, self.unanswered = 0.0, 0

    async def call(self, first: float, until: float, every: float) -> None:
        """One caller: begins at `first` (seconds, monotonic), and asks for all items each `every` seconds."""
        await asyncio.sleep(first - time.monotonic())
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while first < until:
            for item in self._items:
                began = time.monotonic()
                writer.write(f"GET /latest/{item} HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n".encode())
                try:
                    status = await asyncio.wait_for(_answer(reader), _PATIENCE)
                except (OSError, EOFError, asyncio.TimeoutError):
                    self.unanswered += 1
                    writer.transport.abort()
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    continue
                self.statuses[item][status] += 1
                self.worst = max(self.worst, time.monotonic() - began)
            first += every
            await asyncio.sleep(max(0.0, first - time.monotonic()))
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.lower().startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(lines[0].split()[1])


async def main(port: int, callers: int, seconds: float, every: float, items: Sequence[str]) -> None:
    polling, now = Polling(port, items), time.monotonic() + 0.2
    starts = [now + every * number / callers for number in range(callers)]  # not all at one moment
    await asyncio.gather(*(polling.call(start, now + seconds, every) for start in starts))
    found = {item: dict(statuses) for item, statuses in polling.statuses.items()}
    print(json.dumps({"statuses": found, "worst": polling.worst, "unanswered": polling.unanswered}))


if __name__ == "__main__":
    if os.getuid() == 0 and int(sys.argv[2]):
        os.setgroups([])
        os.setgid(int(sys.argv[2]))
        os.setuid(int(sys.argv[2]))
    asyncio.run(
        main(int(sys.argv[1]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]), sys.argv[6:])
    )
