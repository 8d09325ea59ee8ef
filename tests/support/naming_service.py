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
from pathlib import Path
from typing import Any

from imds_proxy.callers.resolver import Resolver
from imds_proxy.config import Config
from imds_proxy.policy.caller import Caller
from imds_proxy.server.attribution import BoundedAttribution
from imds_proxy.server.eventloop import run_loop
from imds_proxy.server.launch import wanted
from imds_proxy.server.notify import Notifier, watchdog_interval
from imds_proxy.server.privileges import drop
from imds_proxy.server.supervision import Supervision
from named_call import NamedCall


def described(caller: Caller) -> dict[str, Any]:
    process = caller.process
    return {
        "why": caller.why_unresolved,
        "uid": caller.identity.uid,
        "pid": process.pid if process else None,
        "exe": process.exe if process else None,
    }


async def main() -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    attribution = BoundedAttribution(Resolver())

    def accepted() -> NamedCall:
        return NamedCall(attribution, lambda data: data.endswith(b"\n"), known)

    def known(data: bytes, caller: Caller) -> None:
        found[int(data)] = described(caller)

    await loop.create_server(accepted, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    notifier = Notifier.of_environment(os.environ)
    supervision = Supervision(notifier, watchdog_interval(os.environ, os.getpid()), lambda: "naming")
    supervision.ready()
    supervising = loop.create_task(supervision.run())
    await over.wait()
    supervising.cancel()
    attribution.close()
    return found


drop(None, wanted(Config()))
Path(os.environ["STATE_DIRECTORY"], "found.json").write_text(json.dumps(run_loop(main())))
