"""How many connections there may be: in all and for each caller, the oldest idle one closed first.

Knows connections only as things that are idle or not, and can be closed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What the register needs of a connection."""

    @property
    def idle(self) -> bool:
        """Whether no request of it is being answered."""

    def evict(self) -> None:
        """Closes it to make room; `gone` follows."""


Connection = TypeVar("Connection", bound=Closable)


class ConnectionRegister(Generic[Connection]):
    """All open connections, least recently used first."""

    def __init__(self, total: int, per_caller: int) -> None:
        self.change(total, per_caller)
        self._all: dict[Connection, Hashable] = {}
        self._callers: dict[Hashable, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def change(self, total: int, per_caller: int) -> None:
        """Other limits from now on; what is open stays open."""
        self._total, self._per_caller = total, per_caller

    def admit(self, connection: Connection) -> bool:
        """Takes a new connection; False when the limit is reached and none is idle."""
        if len(self._all) >= self._total and not _evict_oldest(self._all):
            return False
        self._all[connection] = None
        return True

    def assign(self, connection: Connection, caller: Hashable) -> bool:
        """Counts the connection for its caller, and no longer for the one that it was thought to be of;
        False when that one's limit is reached, none idle."""
        before = self._callers.get(self._all.get(connection))
        if before is not None:
            before.pop(connection, None)
        own = self._callers.setdefault(caller, {})
        if len(own) >= self._per_caller and not _evict_oldest(own):
            return False
        self._all[connection] = caller
        own[connection] = None
        return True

    def touch(self, connection: Connection) -> None:
        """The connection has just become idle: it is now the last to be closed."""
        if connection not in self._all:
            return
        caller = self._all[connection] = self._all.pop(connection)
        own = self._callers.get(caller)
        if own is not None and connection in own:
            own[connection] = own.pop(connection)

    def gone(self, connection: Connection) -> None:
        """The connection is closed; telling twice does no harm."""
        caller = self._all.pop(connection, None)
        own = self._callers.get(caller)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self._callers[caller]


def _evict_oldest(connections: Iterable[Closable]) -> bool:
    oldest = next((one for one in connections if one.idle), None)
    if oldest is None:
        return False
    oldest.evict()
    return True
