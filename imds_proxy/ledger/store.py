"""The ledger's file as the daemon writes it: batches in, bounded by size and age.

For one thread. Raises sqlite3.Error for what the disk or the file refuses; decides nothing about it.
"""

from __future__ import annotations

import json
import math
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cachetools import LRUCache

from imds_proxy.ledger.bounds import Bounds, transaction
from imds_proxy.ledger.entries import Alike, Batch, Described, Entry, Installed, Lost, Moment, StableCaller
from imds_proxy.ledger.schema import migrate

_HOUR = 3600
_PAGE = 4096
_CLOCK_STEP = 2.0  # seconds between the two clocks: more is a step of the wall clock
_PAUSE = 10.0  # seconds without a batch, after which it is not known what happened meanwhile
_MAX_PROGRAMS = 512  # callers of one identity; more are counted as one
_MAX_ITEMS = 1024  # paths of one caller
_MAX_AGENTS = 2048
_MAX_PLACES = 65_536
_PATH_SEEN = 60.0  # seconds for which a path is as good as seen now

_ADD_CALLER = """
INSERT INTO callers
  (key, exe, script, user, uid, unit, container, image, pod, origin, cmdline, first_seen, last_seen)
VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT (key) DO UPDATE SET last_seen = excluded.last_seen, cmdline = excluded.cmdline,
  container = excluded.container
"""
_SEEN = "UPDATE callers SET last_seen = ?, refused = refused + ?, cause = coalesce(?, cause) WHERE id = ?"
_ADD_HOUR = """
INSERT INTO hours VALUES (?,?,?,?,?,?,?,?,?)
ON CONFLICT DO UPDATE SET count = count + excluded.count
"""
_ADD_TOTAL = "INSERT INTO timeline VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET count = count + excluded.count"
_ADD_SESSION = """
INSERT INTO sessions VALUES (?,?,?,?,?)
ON CONFLICT DO UPDATE SET last_seen = excluded.last_seen, count = count + excluded.count
"""
_ADD_SPAN = """
INSERT INTO spans (boot, begin, end, begin_boot, end_boot, mode, enforcement, interception, version)
VALUES (?,?,?,?,?,?,?,?,?)
"""
_ADD_ITEM = "INSERT INTO items VALUES (?,?,?) ON CONFLICT DO UPDATE SET last_seen = excluded.last_seen"


@dataclass(slots=True)
class _Place:
    """The rows of an `Alike`. It holds the object, so that no other can have its id."""

    alike: Alike
    caller: int
    columns: tuple[str | int, ...]
    needs: bool
    keeps_path: bool
    path_seen: float = -math.inf


class LedgerStore:
    """An open ledger. `keep` is in seconds, `size` in bytes, `host` the name of this machine."""

    def __init__(self, path: Path, keep: float, size: int, host: str, boot: str) -> None:
        """Opens or makes the file and migrates it. Raises NotALedger, sqlite3.Error, OSError."""
        self._boot, pages = boot, size // _PAGE
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            path.touch(mode=0o600)
        # The statements of a batch are one transaction of ours.
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5)
        try:
            self._prepare(host, pages)
        except BaseException:
            self._db.close()
            raise
        self._ids: LRUCache[StableCaller, int] = LRUCache(8192)
        self._places: dict[int, _Place] = {}
        self._agents: dict[str, int] = {}
        self._items: LRUCache[int, set[str]] = LRUCache(4096)
        self._span: int | None = None
        self._last: Batch | None = None
        self._steady: float | None = None  # since when the clock goes on as it did (CLOCK_BOOTTIME)
        self._bounds = Bounds(self._db, boot, keep, pages)

    def _prepare(self, host: str, pages: int) -> None:
        self._db.execute(f"PRAGMA page_size = {_PAGE}")
        migrate(self._db)  # first: another program's file is not to be touched
        self._db.execute("PRAGMA journal_mode = WAL")
        # Killed at any moment it stays whole; a power cut may cost the last seconds.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA journal_size_limit = {4 * 1024 * 1024}")
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(str(found))
        self._db.execute(f"PRAGMA max_page_count = {pages}")
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (secrets.token_hex(16),))
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('host', ?)", (host,))

    def write(self, entries: Sequence[Entry]) -> None:
        """Writes entries, all or none."""
        span, last = self._span, self._last
        try:
            with transaction(self._db):
                for entry in entries:
                    self._write(entry)
        except BaseException:
            self._span, self._last = span, last
            self._forget_rows()
            raise

    def tidy(self, now: Moment) -> None:
        """Drops what is too old, now and then, and the oldest where the file has grown near its size."""
        if self._bounds.tidy(now, self._steady):
            self._forget_rows()

    def close(self) -> None:
        """Closes the file; its write-ahead log is folded in."""
        self._db.close()

    def _write(self, entry: Entry) -> None:
        if isinstance(entry, Batch):
            self._watch(entry)
            if entry.sums:
                self._count(entry.sums, entry.at.wall)
        elif isinstance(entry, Described):
            client = None if entry.client is None else json.dumps(dict(entry.client))
            findings = json.dumps([dict(one) for one in entry.findings]) if entry.findings else None
            self._db.execute(
                "UPDATE callers SET client = ?, findings = ?, advice = ?, fix = ?, credentials = ?"
                " WHERE key = ?",
                (client, findings, entry.advice, entry.fix, entry.credentials, entry.key),
            )
        elif isinstance(entry, Installed):
            self._db.execute(
                "INSERT OR REPLACE INTO programs VALUES (?,?,?,?,?)",
                (entry.name, entry.version, entry.where, entry.advice, entry.seen),
            )
        elif isinstance(entry, Lost):
            lost = (entry.begin, entry.end, entry.reason, entry.count)
            self._db.execute("INSERT INTO losses VALUES (?,?,?,?)", lost)

    def _watch(self, batch: Batch) -> None:
        """Lengthens the span, or begins another: at the start, after a pause, when what is in force or the
        clock changed."""
        now, last = batch.at, self._last
        passed = now.boot - last.at.boot if last else 0.0
        stepped = last is not None and abs((now.wall - last.at.wall) - passed) > _CLOCK_STEP
        if last is None or stepped:
            self._steady = now.boot
        if last is None or self._span is None or batch.watch != last.watch or stepped or passed > _PAUSE:
            # What is true now counts from the last batch on; of a pause nothing is known.
            before = passed if passed <= _PAUSE else 0.0
            watch = batch.watch
            times = (now.wall - before, now.wall, now.boot - before, now.boot)
            words = (watch.mode, watch.enforcement, watch.interception, watch.version)
            self._span = self._db.execute(_ADD_SPAN, (self._boot, *times, *words)).lastrowid
        self._db.execute(
            "UPDATE spans SET end = ?, end_boot = ?, stopped = ? WHERE id = ?",
            (now.wall, now.boot, batch.stopping, self._span),
        )
        self._last = Batch(now, batch.watch)

    def _count(self, sums: Iterable[tuple[Alike, int]], now: float) -> None:
        hour = int(now) // _HOUR * _HOUR
        hours: list[tuple[object, ...]] = []
        totals: dict[tuple[int, str, str], int] = {}
        sessions: dict[tuple[int, str], int] = {}
        callers: dict[int, tuple[int, str | None]] = {}
        for alike, count in sums:
            place = self._places.get(id(alike)) or self._place(alike, now)
            hours.append((place.caller, hour, *place.columns, count))
            total = (hour, alike.session, alike.decision)
            totals[total] = totals.get(total, 0) + count
            refused, cause = callers.get(place.caller, (0, None))
            refused += count if alike.decision == "refused" else 0
            callers[place.caller] = refused, alike.cause or cause
            if place.needs:
                pair = (place.caller, alike.session)
                sessions[pair] = sessions.get(pair, 0) + count
            if place.keeps_path and not 0 <= now - place.path_seen < _PATH_SEEN:
                place.path_seen = now
                self._db.execute(_ADD_ITEM, (place.caller, alike.path, now))
        self._db.executemany(_ADD_HOUR, hours)
        self._db.executemany(_ADD_TOTAL, [(*total, count) for total, count in totals.items()])
        self._db.executemany(_ADD_SESSION, [(*pair, now, now, count) for pair, count in sessions.items()])
        self._db.executemany(_SEEN, [(now, *more, caller) for caller, more in callers.items()])

    def _place(self, alike: Alike, now: float) -> _Place:
        """Where an object's requests are counted; found once, since a cell hands over the same each time."""
        caller = self._caller(alike.caller, now)
        if len(self._places) >= _MAX_PLACES:
            self._places.clear()
        place = _Place(
            alike,
            caller,
            (alike.session, alike.item, alike.decision, alike.reason, alike.cause, self._agent(alike.agent)),
            # A refusal for the request's form is an attack on the caller, and no need of it.
            alike.path is not None or alike.session in ("token", "bypass"),
            alike.path is not None and self._has_room(caller, alike.path),
        )
        self._places[id(alike)] = place
        return place

    def _caller(self, who: StableCaller, now: float) -> int:
        known: int | None = self._ids.get(who)
        if known is None:
            kept = self._bounded(who)
            names = (
                kept.exe,
                kept.script,
                kept.user,
                kept.uid,
                kept.unit,
                kept.container,
                kept.image,
                kept.pod,
            )
            self._db.execute(_ADD_CALLER, (kept.key, *names, kept.origin, kept.cmdline, now, now))
            (known,) = self._db.execute("SELECT id FROM callers WHERE key = ?", (kept.key,)).fetchone()
            self._ids[who] = int(known)
        return int(known)

    def _bounded(self, who: StableCaller) -> StableCaller:
        """The caller, or what all further programs of its identity are: nobody fills the ledger alone."""
        if self._db.execute("SELECT 1 FROM callers WHERE key = ?", (who.key,)).fetchone():
            return who
        place = (who.uid, who.unit, who.container)
        (programs,) = self._db.execute(
            "SELECT count(*) FROM callers WHERE uid IS ? AND unit IS ? AND container IS ?", place
        ).fetchone()
        return who if programs < _MAX_PROGRAMS else who.without_program()

    def _agent(self, text: str) -> int:
        known = self._agents.get(text)
        if known is not None:
            return known
        row = self._db.execute("SELECT id FROM agents WHERE text = ?", (text,)).fetchone()
        if row is None:
            (many,) = self._db.execute("SELECT count(*) FROM agents").fetchone()
            if many >= _MAX_AGENTS and text:
                return self._agent("")
            row = self._db.execute("INSERT INTO agents (text) VALUES (?) RETURNING id", (text,)).fetchone()
        self._agents[text] = int(row[0])
        return int(row[0])

    def _has_room(self, caller: int, path: str) -> bool:
        known: set[str] | None = self._items.get(caller)
        if known is None:
            found = self._db.execute("SELECT path FROM items WHERE caller = ?", (caller,))
            known = self._items[caller] = {path for (path,) in found}
        if path not in known and len(known) >= _MAX_ITEMS:
            return False
        known.add(path)
        return True

    def _forget_rows(self) -> None:
        """Drops what is remembered of rows that may be there no longer."""
        self._ids.clear()
        self._places.clear()
        self._agents.clear()
        self._items.clear()
