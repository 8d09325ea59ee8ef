"""What is remembered of callers in memory: counts by stable identity, session kind and item.

Knows nothing of sockets or logs; the daemon asks it what is new and what to summarise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cachetools import LRUCache

from imds_proxy.policy.caller import Caller, Identity
from imds_proxy.protocol.session import Session

_MAX_ITEMS = 64  # paths kept of one caller until they are summarised


CallerKey = tuple[Identity, str | None, str | None]
"""What stays the same of a caller from process to process: its identity, executable and script."""


def key_of(caller: Caller) -> CallerKey:
    """The key of a caller."""
    return caller.identity, caller.process.exe if caller.process else None, caller.program.script


@dataclass(slots=True)
class CallerRecord:
    """Counts since the last summary. `example` is the caller as first seen."""

    example: Caller
    sessions: dict[Session, int] = field(default_factory=dict)
    seen: set[Session] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    refused: int = 0


class CallerLedger:
    """Bounded memory of callers; the least recently seen is forgotten first (its counts are lost)."""

    def __init__(self, size: int = 4096) -> None:
        self._records: LRUCache[CallerKey, CallerRecord] = LRUCache(size)

    def note(
        self, caller: Caller, session: Session, path: str | None, refused: bool
    ) -> tuple[bool, CallerRecord | None]:
        """Counts one request: whether this caller is seen in this kind of session for the first time, and
        its record, if that can hold no further path: then its counts begin again.

        `path` is None for a request that names no item worth to remember.
        """
        key = key_of(caller)
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = CallerRecord(caller)
        record.sessions[session] = record.sessions.get(session, 0) + 1
        record.refused += refused
        if path is not None:
            record.items.add(path)
        new = session not in record.seen
        if new:
            record.seen.add(session)
        if len(record.items) < _MAX_ITEMS:
            return new, None
        self._records[key] = CallerRecord(record.example, seen=record.seen)
        return new, record

    def take_summaries(self) -> list[CallerRecord]:
        """The records with counts since the last call; their counts begin again."""
        taken = []
        for key, record in list(self._records.items()):
            if record.sessions:
                taken.append(record)
                self._records[key] = CallerRecord(record.example, seen=record.seen)
        return taken
