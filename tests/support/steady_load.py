"""Asks at a steady rate, each request on a connection of its own, until its standard input ends.

A program: `steady_load.py HOST PORT RATE [TOKEN]`. Prints one line a request as it ends: its own port, how
many seconds it took, the status or what went wrong, and CLOCK_MONOTONIC at its begin.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress

_LONGEST = 5.0  # seconds; SDKs have given up by then


async def ask(host: str, port: int, token: str | None) -> None:
    began = time.monotonic()
    own, outcome = 0, ""
    head = "GET /latest/meta-data/mac HTTP/1.1\r\nHost: 100.100.100.200\r\nConnection: close\r\n"
    if token:
        head += f"X-aliyun-ecs-metadata-token: {token}\r\n"

    async def exchange() -> None:
        nonlocal own, outcome
        reader, writer = await asyncio.open_connection(host, port)
        own = writer.get_extra_info("sockname")[1]
        try:
            writer.write(f"{head}\r\n".encode())
            line = await reader.readline()
            await reader.read()
            outcome = line.split()[1].decode() if line else "closed"
        finally:
            writer.close()

    try:
        await asyncio.wait_for(exchange(), _LONGEST)
    except (OSError, asyncio.TimeoutError) as error:
        outcome = type(error).__name__
    print(own, f"{time.monotonic() - began:.4f}", outcome, f"{began:.4f}", flush=True)


async def main() -> None:
    host, port, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    token = sys.argv[4] if len(sys.argv) > 4 else None
    loop = asyncio.get_running_loop()
    over = loop.run_in_executor(None, sys.stdin.read)
    begun = loop.time()
    tasks: set[asyncio.Task[None]] = set()
    count = 0
    while not over.done():
        count += 1
        task = loop.create_task(ask(host, port, token))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0.0, begun + count / rate - loop.time()))
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.gather(*tasks), 2 * _LONGEST)


asyncio.run(main())
