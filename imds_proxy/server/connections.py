"""How many connections there may be: in all and for each caller, the oldest idle one closed first.

Knows connections only as things that are idle or not, and can be closed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Protocol


class Closable(Protocol):
    """What the register needs of a connection."""

    @property
    def idle(self) -> bool:
        """Whether no request of it is being answered."""

    def evict(self) -> None:
        """Closes it to make room; `gone` follows."""


class ConnectionRegister:
    """All open connections, least recently used first."""

    def __init__(self, total: int, per_caller: int) -> None:
        self._total, self._per_caller = total, per_caller
        self._all: dict[Closable, Hashable] = {}
        self._callers: dict[Hashable, dict[Closable, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Closable]:
        return iter(list(self._all))

    def admit(self, connection: Closable) -> bool:
        """Takes a new connection; False when the limit is reached and none is idle."""
        if len(self._all) >= self._total and not _evict_oldest(self._all):
            return False
        self._all[connection] = None
        return True

    def assign(self, connection: Closable, caller: Hashable) -> bool:
        """Counts the connection for its caller; False when that one's limit is reached, none idle."""
        own = self._callers.setdefault(caller, {})
        if len(own) >= self._per_caller and not _evict_oldest(own):
            return False
        self._all[connection] = caller
        own[connection] = None
        return True

    def touch(self, connection: Closable) -> None:
        """The connection has just become idle: it is now the last to be closed."""
        if connection not in self._all:
            return
        caller = self._all[connection] = self._all.pop(connection)
        own = self._callers.get(caller)
        if own is not None and connection in own:
            own[connection] = own.pop(connection)

    def gone(self, connection: Closable) -> None:
        """The connection is closed; telling twice does no harm."""
        caller = self._all.pop(connection, None)
        own = self._callers.get(caller)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self._callers[caller]


def _evict_oldest(connections: dict[Closable, Hashable] | dict[Closable, None]) -> bool:
    oldest = next((one for one in connections if one.idle), None)
    if oldest is None:
        return False
    oldest.evict()
    return True
