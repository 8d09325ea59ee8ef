"""Which RAM roles are there: credentials of one that was removed or detached are forgotten at once.

Knows nothing of how the service is asked; it says what is to be asked.
"""

from __future__ import annotations

from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.responses import Answer
from imds_proxy.protocol.target import Target, canonical_target
from imds_proxy.upstream.store import AnswerStore, Stored

_AGAIN = 60.0  # seconds between looks into the list of roles, while credentials are used
_IN_USE = 300.0  # seconds since somebody asked for them
_LIST = ("ram", "security-credentials")


class RoleWatch:
    """Looks after the credentials in a store. Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        self._looked: dict[str, float] = {}
        self.removals = 0  # what was asked for before one may be of a role that is gone

    def note(self, target: Target, item: ItemClass, answer: Answer, now: float) -> None:
        """Learns from an answer of the service, whoever asked for it."""
        if item is ItemClass.CREDENTIALS and answer.status == 404:
            self._forget(target.segments[-1])
        elif target.segments[-2:] == _LIST and answer.status in (200, 404):
            there = answer.body.decode("latin-1").lower().split() if answer.status == 200 else []
            for _, stored in self._store.items():
                role = stored.role
                if role is not None and stored.answer.status == 200 and role not in there:
                    self._forget(role)
            # Nor is one that has come still missing.
            self._store.forget_where(lambda stored: stored.role in there and stored.answer.status == 404)
            path = _list_of(target.path, below=False)
            if path in self._looked:
                self._looked[path] = now

    def due(self, now: float) -> list[Target]:
        """The lists of roles that are to be read now: those above credentials that are in use."""
        used: dict[str, float] = {}
        for _, stored in self._store.items():
            if stored.role is not None and stored.answer.status == 200 and now - stored.used_at < _IN_USE:
                path = _list_of(stored.target.path, below=True)
                used[path] = max(stored.got, used.get(path, stored.got))
        self._looked = {path: max(got, self._looked.get(path, got)) for path, got in used.items()}
        due = [path for path, at in self._looked.items() if now - at >= _AGAIN]
        self._looked.update(dict.fromkeys(due, now))
        return [canonical_target(path.encode("ascii")) for path in due]

    def _forget(self, role: str) -> None:
        """By whatever name it was asked for, and with all that speaks of it."""
        self.removals += 1
        name = role.encode("latin-1")

        def speaks_of_it(stored: Stored) -> bool:
            tells = stored.secret or stored.target.segments[-2:] == _LIST
            return stored.role == role or (tells and name in stored.answer.body.lower())

        self._store.forget_where(speaks_of_it)


def _list_of(path: str, below: bool) -> str:
    """The path of the list, with its slash; `below`: of the list above that path."""
    path = path.rstrip("/")
    return (path.rpartition("/")[0] if below else path) + "/"
