"""The thread that writes the ledger: what the disk does to it never reaches a caller.

Holds entries while the file cannot be written, moves a broken file aside and goes on with another.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from imds_proxy.ledger.entries import Batch, Entry, Lost, Moment
from imds_proxy.ledger.schema import NewerLedger, NotALedger
from imds_proxy.ledger.store import LedgerStore

_QUEUE = 256  # batches that wait for the thread
_MAX_HELD = 1024  # entries while the file cannot be written: some minutes
_MAX_HELD_SUMS = 200_000
_MAX_ASIDE = 2  # broken files that are kept

Say = Callable[[str, str, str], None]
"""Logs an event: slug, sentence, detail."""


class LedgerWriter:
    """Takes entries from any one thread. `open_store` opens the file at `path`, in the writer's thread."""

    def __init__(self, path: Path, open_store: Callable[[], LedgerStore], say: Say) -> None:
        self.path = path
        self._open_store, self._say = open_store, say
        self._entries: queue.Queue[tuple[Entry, ...] | None] = queue.Queue(_QUEUE)
        self._overflow: Lost | None = None
        self._store: LedgerStore | None = None
        self._held: list[Entry] = []
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def put(self, *entries: Entry) -> None:
        """Hands entries that belong together to the thread, without waiting."""
        try:
            if self._overflow is not None:
                self._entries.put_nowait((self._overflow,))
                self._overflow = None
            self._entries.put_nowait(entries)
        except queue.Full:
            for entry in entries:
                self._overflow = _lost_with(self._overflow, entry, "the disk stalled")

    def close(self, timeout: float = 2.0) -> None:
        """Writes what was handed over, waiting at most `timeout` seconds."""
        with suppress(queue.Full):
            self._entries.put(None, timeout=timeout)
        self._thread.join(timeout)

    def _run(self) -> None:
        more = True
        while more:
            handed = [self._entries.get()]
            with suppress(queue.Empty):
                while True:
                    handed.append(self._entries.get_nowait())
            more = None not in handed
            for entries in handed:
                self._held += entries or ()
            if self._held:
                self._write()
        if self._store is not None:
            with suppress(sqlite3.Error):
                self._store.close()

    def _write(self) -> None:
        try:
            try:
                self._write_held()
            except sqlite3.DatabaseError as error:
                if not _is_broken(error):
                    raise
                self._move_aside("broken", str(error))
                self._write_held()
            except NewerLedger as error:
                self._move_aside("newer", str(error))
                self._write_held()
        except (sqlite3.Error, NotALedger, OSError) as error:
            self._hold(str(error))
        else:
            if self._failing:
                self._failing = False
                self._say("ledger-recovered", "the ledger is written again", str(self.path))

    def _write_held(self) -> None:
        if self._store is None:
            self._store = self._open_store()
        now = _moment_of(self._held)
        try:
            self._store.write(self._held)
        except sqlite3.OperationalError:  # full by its own bound, it may have room to make
            if now is None:
                raise
            self._store.tidy(now)
            self._store.write(self._held)
        self._held.clear()
        if now is not None:
            self._store.tidy(now)

    def _hold(self, why: str) -> None:
        if not self._failing:
            self._failing = True
            self._say(
                "ledger-unwritten", "the ledger cannot be written; counts are held in memory for a while", why
            )
        lost: Lost | None = None
        while len(self._held) > _MAX_HELD or _sums(self._held) > _MAX_HELD_SUMS:
            oldest = self._held.pop(0)
            lost = _lost_with(lost, oldest, "the ledger could not be written")
        if lost is not None:
            self._held.insert(0, lost)

    def _move_aside(self, kind: str, why: str) -> None:
        """Renames the file with its companions, so that it can still be looked at. Raises OSError."""
        if self._store is not None:
            with suppress(sqlite3.Error):
                self._store.close()
            self._store = None
        name = f"{self.path.name}.{kind}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        aside = self.path.with_name(name)
        for companion in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + companion).rename(f"{aside}{companion}")
        older = sorted(self.path.parent.glob(f"{self.path.name}.{kind}-*T??????"))[:-_MAX_ASIDE]
        for one in older:
            for companion in ("-wal", "-shm", ""):
                with suppress(OSError):
                    Path(f"{one}{companion}").unlink()
        self._say(
            "ledger-set-aside",
            f"the ledger is {kind}; it was moved aside and another begun",
            f"{aside}: {why}",
        )


def _is_broken(error: sqlite3.DatabaseError) -> bool:
    # SQLITE_CORRUPT and SQLITE_NOTADB are DatabaseError itself; a full disk, a lock are its subclasses.
    return type(error) is sqlite3.DatabaseError


def _moment_of(entries: list[Entry]) -> Moment | None:
    return next((entry.at for entry in reversed(entries) if isinstance(entry, Batch)), None)


def _sums(entries: list[Entry]) -> int:
    return sum(len(entry.sums) for entry in entries if isinstance(entry, Batch))


def _lost_with(lost: Lost | None, entry: Entry, reason: str) -> Lost | None:
    """The loss of one more entry. What says nothing of a time (a description) is found out again."""
    if isinstance(entry, Lost):
        begin, end, count = entry.begin, entry.end, entry.count
    elif isinstance(entry, Batch) and entry.sums:
        begin = end = entry.at.wall
        count = sum(number for _, number in entry.sums)
    else:
        return lost
    if lost is None:
        return Lost(begin, end, reason, count)
    return Lost(min(lost.begin, begin), max(lost.end, end), reason, lost.count + count)
