"""The command `dashboard`: bridges the daemon's admin socket and its ledger to a page on loopback."""

from __future__ import annotations

import argparse
import asyncio
import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imds_proxy.config import ConfigErrors, load_or_default
from imds_proxy.dashboard.door import Door
from imds_proxy.ledger.merging import Merge
from imds_proxy.ledger.page import Live, write_page
from imds_proxy.ledger.pagestyle import POLICY
from imds_proxy.ledger.report_command import add_files, moment
from imds_proxy.server.admin import ask
from imds_proxy.server.fleetport import FleetPort, Page

_OK, _FAILED, _REFUSED = 0, 1, 78
_REFRESH = 15  # seconds
_HTML = "text/html; charset=utf-8"
_HEADERS = (
    ("Content-Security-Policy", f"{POLICY}; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the daemon is, and where the page shall be."""
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the daemon's configuration (YAML)")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: any free one)")
    parser.add_argument("--since", type=moment, metavar="WHEN", help="what was seen since, such as 14d")


def run(args: argparse.Namespace) -> int:
    """Serves the page until SIGINT; 1 where no daemon answers, 78 for a refused configuration."""
    try:
        config = load_or_default(args.config)
    except ConfigErrors as errors:
        for error in errors.errors:
            print(error, file=sys.stderr)
        return _REFUSED
    socket = config.admin.socket
    try:
        ask(socket, "state")
    except (OSError, ValueError) as failure:
        print(f"imds-proxy dashboard: {socket}: no daemon answers there: {failure}", file=sys.stderr)
        return _FAILED
    return asyncio.run(_serve(lambda: render(ask(socket, "state"), args.since), args.port))


def render(state: dict[str, Any], since: float | None) -> bytes:
    """The page for what the daemon said. Blocks; of the ledger what can be read is shown."""
    live = Live(state["host"], state["facts"], state["refusals"])
    out = io.StringIO()
    with Merge(since) as merge:
        if state["ledger"] is not None:
            add_files(merge, [Path(state["ledger"])], sys.stderr)
        write_page(merge, out, live, _REFRESH)
    return out.getvalue().encode("utf-8", "replace")


async def _serve(page: Callable[[], bytes], port: int) -> int:
    door, loop, stop = Door(), asyncio.get_running_loop(), asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)

    async def answer(target: str, cookies: tuple[str, ...]) -> Page:
        if (cookie := door.open(target)) is not None:
            return Page(303, b"", headers=(("Set-Cookie", cookie), ("Location", "/"), *_HEADERS))
        if not door.knows(cookies):
            return Page(403, b"The key opens once. Run `imds-proxy dashboard` again for another.\n")
        if target != "/":
            return Page(404, b"There is one page.\n")
        try:
            body = await loop.run_in_executor(None, page)
        except (OSError, ValueError, KeyError):
            return Page(503, b"The daemon does not answer; this page will when it does.\n")
        return Page(200, body, _HTML, _HEADERS)

    place = FleetPort(answer)
    try:
        host, number = await place.open("127.0.0.1", port)
    except (OSError, OverflowError) as error:
        print(f"imds-proxy dashboard: 127.0.0.1:{port}: {error}", file=sys.stderr)
        return _FAILED
    print(f"dashboard on http://{host}:{number}/{door.key} (opens once; Ctrl-C ends it)", flush=True)
    await stop.wait()
    await place.close()
    return _OK
