"""Tells systemd how the daemon is: that its event loop turns, and what the real service does.

When it began and when it stops is told by the life cycle; knows nothing of what is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from imds_proxy.server.notify import Notifier

_STATUS_INTERVAL = 1.0  # seconds


class Supervision:
    """The state of a run, as `systemctl status` shows it. `state` gives one line for people."""

    def __init__(self, notifier: Notifier, watchdog: float | None, state: Callable[[], str]) -> None:
        """`watchdog`: seconds without a word after which systemd ends the process; None: it does not."""
        self._notifier, self._state = notifier, state
        self._interval = min(_STATUS_INTERVAL, watchdog / 3) if watchdog else _STATUS_INTERVAL
        self._watched = watchdog is not None
        self._said = ""

    def ready(self) -> None:
        """It serves: at the start, or again after a reload."""
        self._said = self._state()
        self._notifier.ready(self._said)

    def reloading(self) -> None:
        """It reads its configuration; `ready` follows."""
        self._notifier.reloading()

    def stopping(self) -> None:
        """It drains."""
        self._said = "draining: answering what was asked, accepting nothing new"
        self._state = lambda: self._said
        self._notifier.stopping(self._said)

    async def run(self) -> None:
        """Feeds the watchdog from the event loop, and says what has changed, until cancelled."""
        while self._notifier.listening:
            if self._watched:
                self._notifier.alive()
            state = self._state()
            if state != self._said:
                self._said = state
                self._notifier.status(state)
            await asyncio.sleep(self._interval)
