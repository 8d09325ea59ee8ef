"""A daemon's counting under load, without its sockets: run as a program, and made to be killed.

Words: the ledger, and a file to which (monotonic seconds, requests counted) is appended all the time.
"""

from __future__ import annotations

import asyncio
import io
import os
import struct
import sys
import time
from dataclasses import replace
from pathlib import Path

from imds_proxy.config import Config, Ledger
from imds_proxy.ledger.tally import Tally
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.protocol.session import Session
from imds_proxy.server.bookkeeping import Bookkeeper, open_ledger
from imds_proxy.server.events import Outcome, RequestEvents
from imds_proxy.server.log import Log

PROGRESS = struct.Struct("dq")


async def main(ledger: Path, progress: Path) -> None:
    log = Log("json", io.StringIO())
    config = replace(Config(), ledger=replace(Ledger(), path=ledger))
    events = RequestEvents(log, Tally(), time.monotonic)
    books = Bookkeeper(events, open_ledger(config, "boot", log), lambda: config)
    running = asyncio.get_running_loop().create_task(books.run())
    callers = [Caller(Identity(n), user=f"u{n}", process=Process(n, f"/opt/{n}")) for n in range(50)]
    outcomes = [Outcome(one, Session.LEGACY, f"/latest/{n % 7}", "slow") for n, one in enumerate(callers)]
    counted = 0
    descriptor = os.open(progress, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while not running.done():
        for outcome in outcomes:
            events.record(outcome, events.tally_of(outcome.caller))
        counted += len(outcomes)
        os.write(descriptor, PROGRESS.pack(time.monotonic(), counted))
        await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
