"""Who goes past the redirect: connections to the service that the proxy has not accepted, looked for now
and then while the redirect is in force.

Thin: `intercept` lists connections, `callers` names processes; here is only which of them count, and when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress

from imds_proxy.config import Address
from imds_proxy.intercept.opensockets import OpenConnection, programs
from imds_proxy.intercept.passing import passing
from imds_proxy.ledger.entries import Alike, StableCaller
from imds_proxy.policy.caller import Caller

_INTERVAL = 3.0  # seconds between looks; what is there twice has had its time to be accepted
_AGAIN = 60.0  # seconds after which one that is still there is said again


class PastWatch:
    """`active` says whether to look; `peers` gives the callers' ends of accepted connections; `name` a
    process as a caller (raises OSError)."""

    def __init__(
        self,
        services: Collection[Address],
        active: Callable[[], bool],
        peers: Callable[[], Collection[Address]],
        name: Callable[[int], Caller],
        clock: Callable[[], float],
    ) -> None:
        self._services, self._active, self._peers = services, active, peers
        self._name, self._clock = name, clock
        self._suspected: set[Hashable] = set()
        self._said: dict[Hashable, tuple[StableCaller, float]] = {}
        self._found: list[tuple[Alike, int]] = []

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_INTERVAL)
            if self._active():
                peers = self._peers()
                with suppress(OSError):  # without netlink nobody can tell
                    self._found += await loop.run_in_executor(None, self.look, peers)

    def take(self) -> list[tuple[Alike, int]]:
        """Connections since the last call: 1 for a new one, 0 for one that is still there."""
        found, self._found = self._found, []
        return found

    def look(self, peers: Collection[Address]) -> list[tuple[Alike, int]]:
        """One look, as `take` gives it. Raises OSError."""
        there = {(one.local, one.inode): one for one in passing(self._services, peers)}
        now, found = self._clock(), []
        confirmed = [key for key in there if key in self._suspected]
        self._suspected = set(there)
        self._said = {key: said for key, said in self._said.items() if key in there}
        new = [there[key] for key in confirmed if key not in self._said]
        holders = programs({one.inode for one in new}) if new else {}
        for key in confirmed:
            known = self._said.get(key)
            if known is None:
                who = self._who(there[key], holders)
                found.append((_alike(who), 1))
            elif now - known[1] >= _AGAIN:
                who = known[0]
                found.append((_alike(who), 0))
            else:
                continue
            self._said[key] = (who, now)
        return found

    def _who(self, connection: OpenConnection, holders: dict[int, tuple[int, str]]) -> StableCaller:
        holder = holders.get(connection.inode)
        if holder is not None:
            with suppress(OSError):
                return StableCaller.of(self._name(holder[0]))
        return StableCaller(uid=connection.uid, origin="a connection past the redirect")


def _alike(who: StableCaller) -> Alike:
    return Alike(who, "bypass", None, "unknown")
