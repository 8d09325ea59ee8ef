"""Where callers come in, with workers and without."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from imds_proxy.config import Config, parse_address
from imds_proxy.server.doors import Doors
from imds_proxy.server.listener import bind
from imds_proxy.server.log import Log
from imds_proxy.server.reload import Reloader
from manned import FakeGround, FakeWorker
from recorded import recorded_service
from served import GET, KnownCaller, echoing, served

LAST = (GET % b"mac")[:-2] + b"Connection: close\r\n\r\n"


def opened(ground: FakeGround | None, talk: Callable[[Doors, int], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        async with recorded_service(echoing) as service, served(service) as (_, daemon):
            log = Log("json", io.StringIO())
            shared = dataclasses.replace(daemon.shared, attribution=KnownCaller())
            daemon = dataclasses.replace(daemon, shared=shared)
            reloader = Reloader(daemon, Config(), Config, log)
            doors = Doors(reloader, ground, log)  # type: ignore[arg-type]
            wire = bind(parse_address("127.0.0.1:0"), 1)
            listener = doors.open(wire, wire)
            try:
                return await asyncio.wait_for(talk(doors, wire.getsockname()[1]), 10)
            finally:
                await doors.leave()
                listener.close()
                await asyncio.sleep(0.01)
                log.close()

    return asyncio.run(main())


async def asked(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LAST)
    got = await reader.read()
    writer.close()
    return got


def test_without_workers_the_daemon_accepts_and_there_is_nobody_to_recall() -> None:
    async def talk(doors: Doors, port: int) -> tuple[bytes, str | None, list[object]]:
        got = await asked(port)
        await doors.settle()
        await doors.watch()  # there is nothing to watch
        return got, doors.workers, doors.peers()

    got, workers, peers = opened(None, talk)
    assert got.endswith(b"/latest/meta-data/mac")
    assert (workers, peers) == (None, [])


def test_with_workers_they_are_recalled_before_what_has_come_is_settled() -> None:
    ground = FakeGround(1)

    async def talk(doors: Doors, port: int) -> tuple[str | None, str | None]:
        before = doors.workers
        worker: FakeWorker = ground.born[0]
        worker.says("ready", 0)
        await worker.hears("listen")
        settling = asyncio.get_running_loop().create_task(doors.settle())
        await worker.hears("recall")
        assert not settling.done()
        worker.says("recalled")
        await settling
        now = doors.workers
        worker.wire.close()
        return before, now

    assert opened(ground, talk) == ("0 of 1", "1 of 1")


def test_a_daemon_without_workers_does_not_load_what_only_they_need() -> None:
    script = "import sys, imds_proxy.server.run; print(*sorted(m for m in sys.modules if 'imds_proxy' in m))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    rooms = {"board", "channel", "crew", "learnt", "lessons", "member", "nursery", "seats", "worker"}
    assert not rooms & {name.rpartition(".")[2] for name in done.stdout.split()}
