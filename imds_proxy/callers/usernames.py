"""Names of uids, remembered for a minute: the user database may be far away (LDAP).

Knows nothing of processes. A name is for people and for rules by user; the uid is the fact.
"""

from __future__ import annotations

import pwd
import time

_LIFETIME = 60.0  # seconds
_MAX_NAMES = 1024


class UserNames:
    """A bounded memory of the user database. Safe to share between threads."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[float, str | None]] = {}

    def name(self, uid: int) -> str | None:
        """The user's name, None if the database has none. May block: not for the event loop."""
        entry = self._names.get(uid)
        if entry is not None and entry[0] > time.monotonic():
            return entry[1]
        try:
            name: str | None = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = None
        if len(self._names) >= _MAX_NAMES:
            self._names = {}
        self._names[uid] = (time.monotonic() + _LIFETIME, name)
        return name
