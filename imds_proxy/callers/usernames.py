"""Names of uids and gids, remembered for a minute: the user database may be far away (LDAP).

Knows nothing of processes. A name is for people and for rules by user; the uid is the fact.
"""

from __future__ import annotations

import grp
import pwd
import time
from collections.abc import Callable

_LIFETIME = 60.0  # seconds
_MAX_NAMES = 1024


class UserNames:
    """A bounded memory of the user and group database. Safe to share between threads."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, int], tuple[float, str | None]] = {}

    def name(self, uid: int) -> str | None:
        """The user's name, None if the database has none. May block: not for the event loop."""
        return self._of("user", uid, lambda: pwd.getpwuid(uid).pw_name)

    def group(self, gid: int) -> str | None:
        """The group's name, None if the database has none. May block."""
        return self._of("group", gid, lambda: grp.getgrgid(gid).gr_name)

    def _of(self, kind: str, number: int, ask: Callable[[], str]) -> str | None:
        entry = self._names.get((kind, number))
        if entry is not None and entry[0] > time.monotonic():
            return entry[1]
        try:
            name: str | None = ask()
        except KeyError:
            name = None
        if len(self._names) >= _MAX_NAMES:
            self._names = {}
        self._names[kind, number] = (time.monotonic() + _LIFETIME, name)
        return name
