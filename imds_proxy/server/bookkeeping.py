"""What the daemon tells its ledger twice a second: what was counted, and that it watches, and how.

Thin: `events` counts, `ledger` writes; here is only when, and what is in force.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from imds_proxy import __version__
from imds_proxy.config import Config
from imds_proxy.ledger.entries import Alike, Batch, Installed, Moment, Watch
from imds_proxy.ledger.store import LedgerStore
from imds_proxy.ledger.writer import LedgerWriter
from imds_proxy.protocol.profile import PROFILES
from imds_proxy.server.events import RequestEvents
from imds_proxy.server.installed import installed
from imds_proxy.server.log import Log

_INTERVAL = 0.5  # seconds: a killed daemon loses what it counted since, and less than one second

_DAY = 86400.0  # seconds between looks at what is installed


def now() -> Moment:
    """This instant on both clocks."""
    return Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))


def open_ledger(config: Config, boot: str, log: Log) -> LedgerWriter | None:
    """The writer of the ledger that is configured, if one is; the file is opened in its thread."""
    if not config.ledger.enabled:
        return None
    path, keep, size = config.ledger.below(config.state), config.ledger.keep, config.ledger.size

    def open_store() -> LedgerStore:
        return LedgerStore(path, keep, size, socket.gethostname(), boot)

    def say(event: str, message: str, detail: str) -> None:
        log.event(event, message, detail=detail)

    return LedgerWriter(path, open_store, say)


def watch_of(config: Config, redirect: str) -> Watch:
    """How the daemon watches by this configuration and the state of its redirect (`Interception.state`).

    Without one it sees all callers only where it listens at the service's own address.
    """
    owns = any(one.host in PROFILES[config.provider].addresses for one in config.listen)
    how = "address" if redirect == "none" and owns else redirect
    return Watch(config.mode, config.policy.enforcement, how, __version__)


class Bookkeeper:
    """Hands batches to the ledger. `config` gives the configuration in force, `redirect` the redirect's
    state, `passing` who goes past it (see `PastWatch`)."""

    def __init__(
        self,
        events: RequestEvents,
        ledger: LedgerWriter | None,
        config: Callable[[], Config],
        redirect: Callable[[], str] = lambda: "none",
        passing: Callable[[], list[tuple[Alike, int]]] = list,
        clock: Callable[[], Moment] = now,
    ) -> None:
        self._events, self._ledger, self._config = events, ledger, config
        self._redirect, self._passing, self._clock = redirect, passing, clock

    async def run(self) -> None:
        """Until it is cancelled."""
        look = self._clock().boot
        while True:
            self.note()
            if self._ledger is not None and self._clock().boot >= look:
                look += _DAY
                found = await asyncio.get_running_loop().run_in_executor(None, self._look)
                self._ledger.put(*found)
            await asyncio.sleep(_INTERVAL)

    def _look(self) -> list[Installed]:
        return list(installed(self._clock().wall))

    def note(self, *, stopping: bool = False) -> None:
        """One batch, now. Without a ledger counts are taken all the same: the log sums them up."""
        sums, described = self._events.take(), self._events.described()
        if self._ledger is not None:
            watch = watch_of(self._config(), self._redirect())
            batch = Batch(self._clock(), watch, [*sums, *self._passing()], stopping)
            self._ledger.put(batch, *described)  # what is described comes after its caller

    def close(self) -> None:
        """The last batch; waits a moment for it to be written."""
        self.note(stopping=True)
        if self._ledger is not None:
            self._ledger.close()
