"""The interception of this daemon: what it needs of the other parts, and its admin commands."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.config import Address, Config
from imds_proxy.intercept.methods import Method
from imds_proxy.intercept.nftables import NftablesRedirect
from imds_proxy.intercept.redirect import InterceptError, Plan, Redirect
from imds_proxy.protocol.profile import PROFILES
from imds_proxy.server.admin import Command
from imds_proxy.server.build import Daemon, boottime
from imds_proxy.server.doors import Doors
from imds_proxy.server.interception import House, Interception
from imds_proxy.server.keeping import RedirectKeeper
from imds_proxy.server.launch import Launched
from imds_proxy.server.listener import Listener
from imds_proxy.server.log import Log
from imds_proxy.server.pastwatch import PastWatch

_LAST_REQUEST = 0.05  # seconds
_LONGEST_DISMISSAL = 20.0  # seconds: whoever asked by the admin socket waits for it


def methods(adopted: Callable[[], Mapping[str, int]] = dict) -> Mapping[str, Method]:
    """By the names of `intercept.method`, in the order in which `auto` tries them.

    `adopted` gives, once, the descriptors that an earlier run's eBPF redirect left.
    """

    def ebpf(plan: Plan) -> Redirect:
        from imds_proxy.intercept.ebpf import EbpfRedirect  # seldom: nftables is tried first

        tree = CgroupTree.find()
        try:
            return EbpfRedirect(plan, tree.mount, adopted())
        finally:
            tree.close()

    return {"nftables": NftablesRedirect, "ebpf": ebpf}


METHODS = methods()


def services_of(config: Config) -> tuple[Address, ...]:
    """What callers connect to: every address of the cloud's metadata service."""
    profile = PROFILES[config.provider]
    return tuple(Address(host, profile.port) for host in profile.addresses)


def interception_of(
    config: Config,
    daemon: Daemon,
    launched: Launched,
    doors: Doors,
    log: Log,
    keeper: RedirectKeeper,
) -> Interception:
    """Not up yet. `launched` has the sockets for `intercept.address`; `doors` take calls;
    `keeper` has what an earlier run left."""

    def listen(address: Address) -> Listener:
        bound = launched.redirected[address]
        if isinstance(bound, OSError):
            raise bound
        return doors.open(bound, bound.dup())  # the socket itself is for the next time

    def mark(value: int | None) -> None:
        daemon.pool.mark = value

    patience = min(config.limits.drain, _LONGEST_DISMISSAL)
    house = House(listen, mark, partial(_peers, daemon, doors), partial(_dismiss, daemon, doors, patience))
    by_name = methods(partial(keeper.take, "ebpf-"))
    services, kept = services_of(config), launched.low_descriptor
    return Interception(config.intercept, services, by_name, house, log, boottime, descriptor=kept)


def past_watch_of(config: Config, daemon: Daemon, doors: Doors, interception: Interception) -> PastWatch:
    """Looks for who goes past the redirect while it is in force."""
    return PastWatch(
        services_of(config),
        lambda: interception.state == "redirect",
        partial(_peers, daemon, doors),
        daemon.attribution.process,
        boottime,
    )


def admin_commands(interception: Interception) -> Mapping[str, Command]:
    """`intercept-up` (with `takeover`), `intercept-down` and `intercept-status`: `ok`, `errors`, and more."""

    async def up(asked: Mapping[str, Any]) -> dict[str, Any]:
        try:
            await interception.up()
            closed = await interception.take_over() if asked.get("takeover") is True else None
        except (InterceptError, OSError) as error:
            return _failed(error)
        return {**await status(asked), "closed": closed}

    async def down(_: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return {"ok": True, "errors": [], "was_up": await interception.down()}
        except InterceptError as error:
            return _failed(error)

    async def status(_: Mapping[str, Any]) -> dict[str, Any]:
        try:
            report = await interception.report()
        except OSError as error:
            return _failed(error)
        return {"ok": True, "errors": [], "report": report.as_json()}

    return {"intercept-up": up, "intercept-down": down, "intercept-status": status}


def _failed(error: InterceptError | OSError) -> dict[str, Any]:
    return {"ok": False, "errors": [str(error)]}


def _peers(daemon: Daemon, doors: Doors) -> set[Address]:
    ends = [*doors.peers(), *(connection.ends[0] for connection in daemon.register)]
    return {address for end in ends if (address := _address(end))}


async def _dismiss(daemon: Daemon, doors: Doors, seconds: float, hosts: Collection[str]) -> None:
    """Connections accepted at these hosts get the answers that they wait for, and end."""
    until = boottime() + seconds
    await doors.settle()
    for connection in daemon.register:
        if (end := _address(connection.ends[1])) and end.host in hosts:
            connection.drain()
    await asyncio.sleep(_LAST_REQUEST)  # who asks again meanwhile is told that this answer is the last
    while boottime() < until:
        left = [one for one in daemon.register if (end := _address(one.ends[1])) and end.host in hosts]
        if not left:
            return
        for connection in left:
            connection.close_if_idle()
        await asyncio.sleep(0.01)


def _address(end: object) -> Address | None:
    if not isinstance(end, tuple) or len(end) < 2:
        return None
    ip = ipaddress.ip_address(str(end[0]).partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return Address(str(mapped or ip), int(end[1]))
