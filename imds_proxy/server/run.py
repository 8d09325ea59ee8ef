"""The daemon's life: build, listen, say so, serve, drain on SIGTERM.

The phases stand in `_serve` in their order; knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from imds_proxy.config import Address, Config
from imds_proxy.errors import Refused
from imds_proxy.intercept.redirect import InterceptError
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.target import canonical_target
from imds_proxy.server.admin import AdminSocket
from imds_proxy.server.bookkeeping import Bookkeeper, open_ledger
from imds_proxy.server.build import Daemon, boottime, build
from imds_proxy.server.directprobe import DirectProbe
from imds_proxy.server.doors import Doors
from imds_proxy.server.eventloop import run_loop
from imds_proxy.server.fleet import keep_asking, open_fleet_port
from imds_proxy.server.fleetport import FleetPort
from imds_proxy.server.hotitems import HotItems
from imds_proxy.server.intercepting import admin_commands, interception_of, past_watch_of
from imds_proxy.server.interception import Interception
from imds_proxy.server.keeping import RedirectKeeper
from imds_proxy.server.launch import CannotStart, Launched, launch
from imds_proxy.server.listener import Listener
from imds_proxy.server.livestate import LiveState
from imds_proxy.server.log import Log
from imds_proxy.server.reload import Reloader
from imds_proxy.server.state import GrantFile, boot_id
from imds_proxy.server.supervision import Supervision
from imds_proxy.server.watching import Watching

_SWEEP = 1.0  # seconds between checks of time limits and writes of grants
_LAST_READ = 0.02  # seconds: some turns of the loop
_HOT, _SAVE_HOT = 64, 60.0  # items; seconds between writes of their names
_WARMED = frozenset(ItemClass) - {ItemClass.NEVER, ItemClass.TOKEN, ItemClass.UNKNOWN, ItemClass.AGGREGATE}


def run(config: Config, read: Callable[[], Config], intercept: bool = False) -> int:
    """Runs the daemon until SIGTERM or SIGINT; 0 after a drain, 1 when it could not start.

    With `intercept` the redirect is in force before the daemon is ready. `read` reads the configuration
    again, for SIGHUP and `imds-proxy reload`; it raises ConfigErrors, or ValueError with a sentence.
    """
    # Before any thread, that of the log among them, so that none has more rights than the daemon.
    try:
        launched = launch(config, os.environ)
    except CannotStart as refused:
        log = Log(config.log.format)
        log.event(*refused.notice)
        log.close()
        return refused.code
    log = Log(config.log.format)
    for notice in launched.notices:
        log.event(*notice)
    try:
        return run_loop(_serve(config, read, log, launched, intercept), log)
    finally:
        log.close()


async def _serve(
    config: Config, read: Callable[[], Config], log: Log, launched: Launched, intercept: bool
) -> int:
    try:
        daemon = build(config, log)
    except OSError as error:
        why = error.strerror or str(error)
        log.event("no-ebpf", "attribution: ebpf is asked for and cannot be had; auto would do", detail=why)
        return 1
    grants = GrantFile(config.state, boot_id())
    keeps_grants = config.tokens == "real" and _load_grants(daemon, grants, log)
    loop = asyncio.get_running_loop()
    stop, succeeded = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, succeeded.set)  # SIGTERM follows, and then another run at once

    supervision = Supervision(launched.notifier, launched.watchdog, lambda: _state(config, daemon))
    reloader = Reloader(daemon, config, read, log)
    reloads: set[asyncio.Task[Any]] = set()  # the loop itself keeps no task alive

    async def reload() -> dict[str, Any]:
        supervision.reloading()
        try:
            return await reloader.reload()
        finally:
            supervision.ready()

    def reload_soon() -> None:
        reloads.add(task := loop.create_task(reload()))
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload_soon)

    doors = Doors(reloader, launched.ground, log)
    listeners = [doors.open(wire, wire) for wire in launched.sockets]
    keeper = RedirectKeeper(launched.store)
    interception = interception_of(config, daemon, launched, doors, log, keeper)
    if intercept:
        try:
            await interception.up()
        except InterceptError as error:
            log.event("cannot-intercept", str(error), cause=error.slug)
            return 1
    keeper.keep(interception.redirect)
    admin = await _open_admin(
        config, reloader, reload, interception, doors, log
    )  # before anybody is told it is there
    for listener in listeners:
        host, port = listener.socket.getsockname()[:2]
        print(f"listening on http://{Address(host, port)}", flush=True)  # noqa: T201  machine contract
    fleet = await _open_fleet(config, reloader, interception, log)
    supervision.ready()
    log.event(
        "ready",
        "serving",
        mode=config.mode,
        upstream=str(config.upstream.address),
        host=socket.gethostname(),
    )
    past = past_watch_of(config, daemon, doors, interception)
    books = Bookkeeper(
        daemon.events,
        open_ledger(config, boot_id(), log),
        lambda: reloader.config,
        lambda: interception.state,
        past.take,
    )

    hot = HotItems(config.state)
    probing = loop.create_task(_greet(daemon, config, hot, log))
    sweeping = loop.create_task(_sweep(daemon, grants if keeps_grants else None, hot, config, log))
    noting, looking = loop.create_task(books.run()), loop.create_task(past.run())
    supervising = loop.create_task(supervision.run())
    asking = loop.create_task(keep_asking(daemon, config.mode))
    renewing = loop.create_task(interception.watch())
    keeping = loop.create_task(keeper.watch(lambda: interception.redirect))
    following = [loop.create_task(doors.watch())]
    following += [loop.create_task(daemon.pods.run())] if daemon.pods is not None else []
    await stop.wait()
    supervision.stopping()
    if not succeeded.is_set():
        interception.release()
        launched.release()
    if fleet is not None:
        await fleet.close()
    if admin is not None:
        await admin.close()

    log.event("draining", "stopping: answering what was asked, accepting nothing new")
    await _drain(daemon, listeners + interception.listeners, doors, config.limits.drain)
    for task in (probing, sweeping, noting, looking, supervising, asking, renewing, keeping, *following):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    if keeps_grants:
        _save_grants(daemon, grants, log)
    _save_hot(daemon, hot)
    daemon.events.close()
    await asyncio.sleep(0)  # what was found out last is told
    books.close()
    daemon.events.summarise()
    daemon.attribution.close()
    daemon.pool.close()
    if not succeeded.is_set():
        interception.finish()
    log.event("stopped", "stopped")
    return 0


def _state(config: Config, daemon: Daemon) -> str:
    """How the daemon is, in a line for `systemctl status`."""
    return f"serving (mode: {config.mode}); {config.upstream.address} {daemon.traffic.state}"


async def _open_admin(
    config: Config,
    reloader: Reloader,
    reload: Callable[[], Coroutine[Any, Any, dict[str, Any]]],
    interception: Interception,
    doors: Doors,
    log: Log,
) -> AdminSocket | None:
    """Without its admin socket the daemon serves all the same, and says so once."""
    shared = reloader.daemon.shared
    watching = Watching(shared.service.cache, shared.rules.classifier, boottime)
    probe = DirectProbe(lambda: reloader.daemon)
    redirect = partial(_redirected, interception)
    live = LiveState(lambda: reloader.daemon, lambda: reloader.config, redirect, lambda: doors.workers)
    commands = {
        "reload": lambda _: reload(),
        "watch": watching.watch,
        "probe": probe.probe,
        "state": live.state,
        **admin_commands(interception),
    }
    admin = AdminSocket(config.admin.socket, commands)
    try:
        await admin.open()
    except OSError as error:
        detail = f"{config.admin.socket}: {_reason(error)}"
        log.event(
            "no-admin-socket",
            "`imds-proxy reload`, `watch` and `intercept` will not reach this daemon",
            detail=detail,
        )
        return None
    return admin


async def _open_fleet(
    config: Config, reloader: Reloader, interception: Interception, log: Log
) -> FleetPort | None:
    address = config.admin.metrics
    if address is None:
        return None
    redirect = partial(_redirected, interception)
    return await open_fleet_port(address, lambda: reloader.daemon, config.hosts, redirect, log)


def _redirected(interception: Interception) -> bool | None:
    """Whether traffic is redirected here; None where nobody asked for it."""
    return None if interception.state == "none" else interception.state == "redirect"


async def _drain(daemon: Daemon, listeners: list[Listener], doors: Doors, seconds: float) -> None:
    until = boottime() + seconds
    # What callers sent before they could know may lie unread in the kernel: it is accepted, read, answered.
    await asyncio.sleep(_LAST_READ)
    await doors.leave()
    for listener in listeners:
        listener.close()
    doors.close()
    await asyncio.sleep(0)
    for connection in daemon.register:
        connection.drain()
    await asyncio.sleep(_LAST_READ)
    while len(daemon.register) and boottime() < until:
        for connection in daemon.register:
            connection.drain()  # those too that opened meanwhile
            connection.close_if_idle()
        await asyncio.sleep(0.01)


async def _greet(daemon: Daemon, config: Config, hot: HotItems, log: Log) -> None:
    """Asks once, soon after the start, whether the service refuses a made-up token; then for the items that
    were hot before."""
    if config.mode == "passthrough":
        return
    pause = 0.1
    while True:
        try:
            if not await daemon.foreign.probe():
                log.event(
                    "foreign-tokens-refused",
                    "the service accepts a made-up token; tokens that were not given here are refused",
                )
            await _warm(daemon, hot)
            return
        except Refused as error:
            if pause == 0.1:
                log.event("upstream-not-ready", error.refusal.sentence, detail=error.detail)
        await asyncio.sleep(pause)
        pause = min(60.0, pause * 2)


async def _warm(daemon: Daemon, hot: HotItems) -> None:
    """Reads what callers will ask for, one after the other. Raises Refused."""
    for path in hot.load():
        with contextlib.suppress(Refused):
            target = canonical_target(path.encode("utf-8"))
            item = daemon.shared.rules.classifier.classify(target)
            if item in _WARMED and target.query is None:
                await daemon.shared.service.cache.warm(target, item)


def _save_hot(daemon: Daemon, hot: HotItems) -> None:
    with contextlib.suppress(OSError):  # only the first callers of the next run wait a little longer
        hot.save([target.path for target in daemon.shared.service.cache.hot(_HOT)])


async def _sweep(daemon: Daemon, grants: GrantFile | None, hot: HotItems, config: Config, log: Log) -> None:
    save_hot_at = boottime() + _SAVE_HOT
    summarise_at = boottime() + config.log.summary
    unwritten = False
    while True:
        await asyncio.sleep(_SWEEP)
        now = boottime()
        for connection in daemon.register:
            connection.check_times(now)
        daemon.shared.service.cache.tend()
        daemon.attribution.tend()
        if now >= save_hot_at:
            _save_hot(daemon, hot)
            save_hot_at = now + _SAVE_HOT
        if grants is not None:
            unwritten = _save_grants(daemon, grants, log, unwritten)
        if now >= summarise_at:
            daemon.events.summarise()
            summarise_at = now + config.log.summary


def _load_grants(daemon: Daemon, grants: GrantFile, log: Log) -> bool:
    """Takes the grants of an earlier run; False (said once) when the state directory is not usable."""
    now = boottime()
    try:
        grants.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for key, grant in grants.load(now):
            daemon.book.give(key, grant.identity, grant.expires)
        daemon.book.take_changes()
        grants.rewrite(daemon.book.live(now))
    except OSError as error:
        log.event(
            "state-unusable",
            "tokens given to callers will not be remembered over a restart",
            detail=f"{grants.directory}: {_reason(error)}",
        )
        return False
    return True


def _save_grants(daemon: Daemon, grants: GrantFile, log: Log, said: bool = False) -> bool:
    """Whether it failed; said once for a row of failures. What is not written, the service itself knows."""
    changes = daemon.book.take_changes()
    if not changes:
        return said
    try:
        grants.save(changes, lambda: daemon.book.live(boottime()))
    except OSError as error:
        if not said:
            log.event("state-unwritten", "hashes of tokens could not be written", detail=_reason(error))
        return True
    return False


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
