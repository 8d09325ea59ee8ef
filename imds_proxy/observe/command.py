"""The command `observe`: watches until it is told to stop, into the ledger and the log."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from imds_proxy.config import Config, ConfigErrors, load_or_default
from imds_proxy.config_values import Duration
from imds_proxy.ledger.tally import Tally
from imds_proxy.observe.packets import PacketSocket
from imds_proxy.observe.watcher import Watcher
from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import PROFILES, Profile
from imds_proxy.protocol.request import HeadRules
from imds_proxy.server.attribution import BoundedAttribution, look_before_they_leave
from imds_proxy.server.bookkeeping import Bookkeeper, open_ledger
from imds_proxy.server.build import boottime, policy_of, watched_by
from imds_proxy.server.clientdesk import ClientDesk
from imds_proxy.server.events import RequestEvents, facts_of
from imds_proxy.server.log import Log
from imds_proxy.server.naming import resolver_of
from imds_proxy.server.state import boot_id

_OK, _FAILED, _REFUSED = 0, 1, 78
_TEND = 1.0  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long, and where to."""
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration file (YAML)")
    parser.add_argument("--for", dest="seconds", type=_duration, help="such as 1h; without it, until SIGTERM")
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="in place of the configuration's")


def run(args: argparse.Namespace) -> int:
    """Watches; 0 when it ends as asked, 1 when it cannot watch, 78 for a refused configuration."""
    try:
        config = load_or_default(args.config)
    except ConfigErrors as errors:
        for error in errors.errors:
            print(error, file=sys.stderr)
        return _REFUSED
    if args.ledger is not None:
        config = replace(config, ledger=replace(config.ledger, path=args.ledger))
    # What is only watched is not upgraded; `ready` judges by that.
    config = replace(config, mode="passthrough")
    log = Log(config.log.format)
    look_before_they_leave()
    try:
        return asyncio.run(_observe(config, args.seconds, log))
    finally:
        log.close()


async def _observe(config: Config, seconds: float | None, log: Log) -> int:
    profile = PROFILES[config.provider]
    try:
        packets = PacketSocket(profile.addresses, profile.port)
    except OSError as error:
        why = error.strerror or str(error)
        log.event("cannot-observe", "packets cannot be watched (CAP_NET_RAW is needed)", detail=why)
        return _FAILED
    try:
        attribution = BoundedAttribution(resolver_of(config, None, log))
    except OSError as error:
        packets.close()
        log.event("no-ebpf", "attribution: ebpf is asked for and cannot be had", detail=error.strerror)
        return _FAILED
    policy = policy_of(config)
    attribution.watch(*watched_by(policy))
    desk = ClientDesk(log, facts_of)
    events = RequestEvents(log, Tally(), boottime, desk)
    watcher = Watcher(_rules(config, profile), attribution.begin_with, policy, events, boottime)
    books = Bookkeeper(events, open_ledger(config, boot_id(), log), lambda: config, lambda: "observe")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(packets.fileno(), packets.read, watcher.take)
    log.event("observing", "watching; nothing is redirected or changed")
    noting = loop.create_task(books.run())
    tending = loop.create_task(_tend(packets, watcher, events, config.log.summary, log))
    with suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    loop.remove_reader(packets.fileno())
    for task in (noting, tending):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    watcher.close()
    packets.close()
    await asyncio.sleep(0)  # what was just named is told
    books.close()
    events.summarise()
    desk.close()
    attribution.close()
    log.event(
        "observed",
        "stopped watching",
        requests=watcher.requests,
        unread=watcher.unread,
        packets_lost=packets.lost,
    )
    return _OK


async def _tend(
    packets: PacketSocket, watcher: Watcher, events: RequestEvents, summary: float, log: Log
) -> None:
    summarise_at = boottime() + summary
    while True:
        await asyncio.sleep(_TEND)
        watcher.tend()
        if lost := packets.count_lost():
            log.event("packets-lost", "the kernel had no room for packets: callers may be missing", lost=lost)
        if boottime() >= summarise_at:
            events.summarise()
            summarise_at = boottime() + summary


def _rules(config: Config, profile: Profile) -> HeadRules:
    return HeadRules(profile, ItemClassifier(profile), config.limits.head, config.limits.target)


def _duration(text: str) -> float:
    try:
        return Duration(1, 365 * 86400).read(text, "str")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
