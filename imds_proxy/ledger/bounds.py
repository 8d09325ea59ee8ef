"""What keeps the ledger small: what is too old goes, then the oldest where the file nears its size.

For the thread that writes it. Raises sqlite3.Error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from imds_proxy.ledger.entries import Moment

_HOUR = 3600
_CROWDED, _RELIEVED = 0.9, 0.8  # of the size: begin and end of making room
_TIDY = 600.0  # seconds between looks for what is too old
_FEW_CALLERS = 64  # are kept whatever the size
_AGED = (
    ("timeline", "hour"),
    ("sessions", "last_seen"),
    ("items", "last_seen"),
    ("spans", "end"),
    ("losses", "end"),
)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """What is done within is done whole or not at all."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class Bounds:
    """`keep` is in seconds, `pages` the most that the file may have, `boot` this boot's id."""

    def __init__(self, db: sqlite3.Connection, boot: str, keep: float, pages: int) -> None:
        self._db, self._boot, self._keep, self._pages = db, boot, keep, pages
        self._looked: float | None = None
        self._forgot = False

    def tidy(self, now: Moment, steady: float | None) -> bool:
        """Whether callers were forgotten. `steady`: since when the wall clock was not set (CLOCK_BOOTTIME):
        one that has just been set may be wrong, and what is old is told when it has held for an hour."""
        self._forgot = False
        if self._looked is None or now.boot - self._looked >= _TIDY:
            self._looked = now.boot
            if steady is not None and now.boot - steady >= _HOUR:
                with transaction(self._db):
                    self._forget_old(now)
        if self._used() > self._pages * _CROWDED:
            self._make_room(now)
        return self._forgot

    def _used(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(pages) - int(free)

    def _forget_old(self, now: Moment) -> None:
        offset, time = now.wall - now.boot, now.wall - self._keep
        # Not what this boot wrote while its clock was wrong: that is not as old as it looks.
        (safe,) = self._db.execute(
            "SELECT min(begin) FROM spans"
            " WHERE boot = ? AND abs(begin - begin_boot - ?) > ? AND end_boot + ? >= ?",
            (self._boot, offset, _HOUR, offset, time),
        ).fetchone()
        time = time if safe is None else min(time, safe)
        self._db.execute("DELETE FROM hours WHERE hour < ?", (time - _HOUR,))
        for table, column in _AGED:
            self._db.execute(f"DELETE FROM {table} WHERE {column} < ?", (time,))  # noqa: S608  (our words)
        self._forget_callers("last_seen < ?", (time,))

    def _make_room(self, now: Moment) -> None:
        """Oldest hours first: who a caller is and when it was seen last is dearer."""
        this_hour = int(now.wall) // _HOUR * _HOUR
        for _ in range(64):
            if self._used() <= self._pages * _RELIEVED:
                return
            with transaction(self._db):
                (until,) = self._db.execute(
                    "SELECT max(hour) FROM"
                    " (SELECT DISTINCT hour FROM hours WHERE hour < ? ORDER BY hour LIMIT 24)",
                    (this_hour,),
                ).fetchone()
                if until is not None:
                    self._db.execute("DELETE FROM hours WHERE hour <= ?", (until,))
                elif not self._evict():
                    return

    def _evict(self) -> bool:
        """Forgets an eighth of the callers, the least recently seen, and notes of which time they are
        missing; False where they are few."""
        (callers,) = self._db.execute("SELECT count(*) FROM callers").fetchone()
        if callers <= _FEW_CALLERS:
            return False
        oldest = "SELECT id FROM callers ORDER BY last_seen LIMIT ?"
        self._db.execute(
            "INSERT INTO losses SELECT min(first_seen), max(last_seen), 'ledger.size', count(*)"  # noqa: S608
            f" FROM callers WHERE id IN ({oldest})",
            (callers // 8,),
        )
        self._forget_callers(f"id IN ({oldest})", (callers // 8,))
        return True

    def _forget_callers(self, which: str, values: tuple[object, ...]) -> None:
        found = self._db.execute(f"SELECT id FROM callers WHERE {which}", values)  # noqa: S608  (our words)
        ids = found.fetchall()
        for table in ("hours", "sessions", "items"):
            self._db.executemany(f"DELETE FROM {table} WHERE caller = ?", ids)  # noqa: S608
        self._db.executemany("DELETE FROM callers WHERE id = ?", ids)
        self._forgot |= bool(ids)
