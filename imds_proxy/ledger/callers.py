"""What is remembered of callers in memory: counts by stable identity, session kind and item.

Knows nothing of sockets or logs; the daemon asks it what is new and what to summarise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cachetools import LRUCache

from imds_proxy.policy.caller import Caller, Identity
from imds_proxy.protocol.session import Session

_MAX_ITEMS = 64  # paths kept of one caller until they are summarised


@dataclass(frozen=True, slots=True)
class CallerKey:
    """What stays the same of a caller from process to process."""

    identity: Identity
    exe: str | None
    script: str | None

    @classmethod
    def of(cls, caller: Caller) -> CallerKey:
        """The key of a caller."""
        return cls(caller.identity, caller.process.exe if caller.process else None, caller.script)


@dataclass(slots=True)
class CallerRecord:
    """Counts since the last summary. `example` is the caller as first seen."""

    example: Caller
    sessions: dict[Session, int] = field(default_factory=dict)
    seen: set[Session] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    refused: int = 0
    items_dropped: int = 0

    @property
    def full(self) -> bool:
        """Whether a further path would be dropped."""
        return len(self.items) >= _MAX_ITEMS


class CallerLedger:
    """Bounded memory of callers; the least recently seen is forgotten first (its counts are lost)."""

    def __init__(self, size: int = 4096) -> None:
        self._records: LRUCache[CallerKey, CallerRecord] = LRUCache(size)

    def note(self, caller: Caller, session: Session, path: str | None, refused: bool) -> bool:
        """Counts one request; True the first time that this caller is seen in this kind of session.

        `path` is None for a request that names no item worth to remember.
        """
        key = CallerKey.of(caller)
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = CallerRecord(caller)
        record.sessions[session] = record.sessions.get(session, 0) + 1
        record.refused += refused
        if path is not None and path not in record.items:
            if record.full:
                record.items_dropped += 1
            else:
                record.items.add(path)
        if session in record.seen:
            return False
        record.seen.add(session)
        return True

    def take_full(self, caller: Caller) -> CallerRecord | None:
        """The caller's record, if it can hold no further path; its counts begin again."""
        key = CallerKey.of(caller)
        record = self._records.get(key)
        if record is None or not record.full:
            return None
        self._records[key] = CallerRecord(record.example, seen=record.seen)
        return record

    def take_summaries(self) -> list[CallerRecord]:
        """The records with counts since the last call; their counts begin again."""
        taken = []
        for key, record in list(self._records.items()):
            if record.sessions:
                taken.append(record)
                self._records[key] = CallerRecord(record.example, seen=record.seen)
        return taken
