"""Where callers come in: listeners of the daemon, and those of its workers where it has some.

What a daemon without workers does not need it does not load.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from imds_proxy.server.arrivals import Arrivals
from imds_proxy.server.listener import Listener
from imds_proxy.server.log import Log
from imds_proxy.server.reload import Reloader

if TYPE_CHECKING:
    from imds_proxy.server.workers.crew import Crew, Ground


class Doors:
    """Takes connections for the daemon that `reloader` holds. To be made where a loop runs."""

    def __init__(self, reloader: Reloader, ground: Ground | None, log: Log) -> None:
        self._arrivals = Arrivals(lambda: reloader.daemon.shared)
        self._crew: Crew | None = None
        if ground is not None:
            from imds_proxy.server.workers.crew import Crew

            self._crew = Crew(ground, lambda: reloader.daemon, self._arrivals, log)
            reloader.applied = self._crew.changed

    @property
    def workers(self) -> str | None:
        """How many workers serve, of how many; None where there are to be none."""
        return f"{self._crew.serving} of {self._crew.count}" if self._crew is not None else None

    def open(self, listening: socket.socket, own: socket.socket) -> Listener:
        """Callers come in by this socket, until what is returned is closed: it owns `own`, which is a copy of
        `listening` or the same."""
        if self._crew is None:
            return Listener(own, self._arrivals.welcome)
        return self._crew.listener(listening, own)

    def peers(self) -> list[object]:
        """The callers' ends of connections that are in no register."""
        return self._arrivals.peers()

    async def watch(self) -> None:
        """Sees that workers are alive, until cancelled."""
        if self._crew is not None:
            await self._crew.watch()

    async def settle(self) -> None:
        """Makes ordinary connections of all that have come so far."""
        if self._crew is not None:
            await self._crew.recall()
        await self._arrivals.settle()

    async def leave(self) -> None:
        """There are no workers any more: what they had is the daemon's."""
        if self._crew is not None:
            await self._crew.leave()

    def close(self) -> None:
        """From now on all are ordinary connections."""
        self._arrivals.close()
