"""Names who connects, as the daemon does: what the unit runs where its sandbox is what is tested.

A program: `naming_service.py PORT`. Each caller sends a line, `NUMBER`; at SIGTERM what was found of each
number is written to `found.json` in the state directory.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvloop

from imds_proxy.callers.resolver import Resolver
from imds_proxy.config import Config
from imds_proxy.policy.caller import Caller
from imds_proxy.server.attribution import BoundedAttribution
from imds_proxy.server.launch import wanted
from imds_proxy.server.notify import Notifier, watchdog_interval
from imds_proxy.server.privileges import drop
from imds_proxy.server.supervision import Supervision


class Noted(asyncio.Protocol):
    """One connection: named at accept, before it is read."""

    def __init__(self, attribution: BoundedAttribution, found: dict[int, dict[str, Any]]) -> None:
        self._attribution, self._found = attribution, found
        self._caller: Caller | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        caller = self._attribution.begin(transport.get_extra_info("socket"), name)
        if isinstance(caller, Caller):
            self._know(caller)
        else:
            task = asyncio.get_running_loop().create_task(caller)
            task.add_done_callback(lambda done: self._know(done.result()))

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._note()

    def _know(self, caller: Caller) -> None:
        self._caller = caller
        self._note()

    def _note(self) -> None:
        if self._caller is None or not self._data.endswith(b"\n"):
            return
        caller, process = self._caller, self._caller.process
        self._found[int(self._data)] = {
            "why": caller.why_unresolved,
            "uid": caller.identity.uid,
            "pid": process.pid if process else None,
            "exe": process.exe if process else None,
        }
        self._transport.close()


async def main() -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    attribution = BoundedAttribution(Resolver())
    await loop.create_server(partial(Noted, attribution, found), "127.0.0.1", int(sys.argv[1]), backlog=4096)
    notifier = Notifier.of_environment(os.environ)
    supervision = Supervision(notifier, watchdog_interval(os.environ, os.getpid()), lambda: "naming")
    supervision.ready()
    supervising = loop.create_task(supervision.run())
    await over.wait()
    supervising.cancel()
    attribution.close()
    return found


drop(None, wanted(Config()))
uvloop.install()  # as the daemon does
Path(os.environ["STATE_DIRECTORY"], "found.json").write_text(json.dumps(asyncio.run(main())))
