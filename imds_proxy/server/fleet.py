"""What a fleet's monitoring sees of the daemon, and the probe that keeps it true. Ties; measures nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from imds_proxy.config import Address
from imds_proxy.errors import Refused
from imds_proxy.server import metrics
from imds_proxy.server.build import Daemon, boottime
from imds_proxy.server.fleetport import FleetPort, Page, by_path
from imds_proxy.server.log import Log
from imds_proxy.server.snapshot import snapshot_of, unready

_ASK_AFTER, _ASK_AGAIN = 30.0, 2.0  # seconds without a call: while the service answers, and while not


async def open_fleet_port(
    address: Address,
    daemon: Callable[[], Daemon],
    hosts: tuple[str, ...],
    redirect: Callable[[], bool | None],
    log: Log,
) -> FleetPort | None:
    """The port for monitoring; None, said once, where it cannot be had: the daemon serves all the same."""

    async def show() -> Page:
        now = snapshot_of(daemon(), redirect())
        try:
            # Off the loop: it takes milliseconds.
            text = await asyncio.get_running_loop().run_in_executor(None, metrics.render, now)
        except metrics.NoLibrary:
            return Page(501, b"The extra is missing: pip install 'imds-proxy[metrics]'\n")
        return Page(200, text, metrics.CONTENT_TYPE)

    async def alive() -> Page:
        return Page(200, b"ok\n")

    async def ready() -> Page:
        reasons = unready(daemon(), redirect())
        body = json.dumps({"ready": not reasons, "reasons": reasons}).encode() + b"\n"
        return Page(503 if reasons else 200, body, "application/json")

    port = FleetPort(by_path({"/metrics": show, "/healthz": alive, "/readyz": ready}), frozenset(hosts))
    try:
        host, number = await port.open(address.host, address.port)
    except OSError as error:
        log.event(
            "no-metrics-port",
            "/metrics, /healthz and /readyz are not served",
            detail=f"{address}: {error.strerror or error}",
        )
        return None
    print(f"admin on http://{Address(host, number)}", flush=True)  # noqa: T201  machine contract
    return port


async def keep_asking(daemon: Daemon, mode: str) -> None:
    """Asks the service for something small when nobody else did for a while, so that what is known of it is
    never old. Ends by being cancelled. In passthrough the callers' own calls must do."""
    traffic = daemon.traffic
    while mode != "passthrough":
        left = wait_before_asking(traffic.answers, boottime() - traffic.last_at)
        if left > 0:
            await asyncio.sleep(left)
            continue
        with contextlib.suppress(Refused):
            await daemon.probe.with_token()
        await asyncio.sleep(_ASK_AGAIN)


def wait_before_asking(answers: bool | None, idle: float) -> float:
    """Seconds until the service is to be asked, when nobody asked it for `idle` seconds."""
    return (_ASK_AFTER if answers else _ASK_AGAIN) - idle
