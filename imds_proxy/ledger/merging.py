"""Ledgers and logs of many hosts as one: merged in a file of its own, so that memory stays bounded.

Adds rows; how a ledger or a log is read stands in `reading` and `logs`, what is shown in `report`.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from imds_proxy.errors import FORM_REFUSALS
from imds_proxy.ledger.coverage import Clock, Gap, Span, gaps
from imds_proxy.ledger.logs import LoggedCaller
from imds_proxy.ledger.reading import Client, client_of, identity_of, losses_of, spans_of
from imds_proxy.ledger.schema import NotALedger, open_to_read
from imds_proxy.ledger.verdict import Verdict

SESSIONS = ("legacy", "fallback", "hardened", "token", "bypass")
_MAX_ITEMS = 64  # paths that are shown of a caller
_MAX_GAPS = 10_000
_HOUR = 3600

_TABLES = """
CREATE TABLE callers (
  id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE,
  exe TEXT, script TEXT, user TEXT, uid INTEGER, unit TEXT, container TEXT, pod TEXT,
  client TEXT, advice TEXT, fix TEXT, credentials INTEGER, cause TEXT,
  first_seen REAL, last_seen REAL,
  legacy INTEGER NOT NULL, fallback INTEGER NOT NULL, hardened INTEGER NOT NULL, token INTEGER NOT NULL,
  bypass INTEGER NOT NULL, refused INTEGER NOT NULL
);
CREATE TABLE items (caller INTEGER, path TEXT, PRIMARY KEY (caller, path)) WITHOUT ROWID;
CREATE TABLE presence (caller INTEGER, host INTEGER, PRIMARY KEY (caller, host)) WITHOUT ROWID;
CREATE TABLE hosts (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, ledger INTEGER, log INTEGER);
CREATE TABLE ledgers (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE timeline (
  hour INTEGER, session TEXT, decision TEXT, count INTEGER, PRIMARY KEY (hour, session, decision)
) WITHOUT ROWID;
"""
_FACTS = "key, exe, script, user, uid, unit, container, pod, client, advice, fix, credentials, cause"
_SUMS = "first_seen, last_seen, legacy, fallback, hardened, token, bypass, refused"
_COLUMNS = 13 + 8
_ADD = f"""
INSERT INTO callers ({_FACTS}, {_SUMS}) VALUES ({",".join("?" * _COLUMNS)})
ON CONFLICT (key) DO UPDATE SET
  client = coalesce(excluded.client, client), advice = coalesce(excluded.advice, advice),
  fix = coalesce(excluded.fix, fix),
  credentials = max(coalesce(credentials, excluded.credentials), coalesce(excluded.credentials, credentials)),
  cause = coalesce(excluded.cause, cause),
  first_seen = min(first_seen, excluded.first_seen), last_seen = max(last_seen, excluded.last_seen),
  legacy = legacy + excluded.legacy, fallback = fallback + excluded.fallback,
  hardened = hardened + excluded.hardened, token = token + excluded.token,
  bypass = bypass + excluded.bypass, refused = refused + excluded.refused
"""  # noqa: S608  (our own words)
# Paths are canonical: none has a line end.
_PATHS = f"""(SELECT group_concat(path, char(10))
  FROM (SELECT path FROM items WHERE caller = callers.id ORDER BY path LIMIT {_MAX_ITEMS}))"""  # noqa: S608
_HOSTS = "(SELECT count(*) FROM presence WHERE caller = callers.id)"
_ADD_ITEM = "INSERT OR IGNORE INTO items SELECT id, ?2 FROM callers WHERE key = ?1"
_ADD_PRESENCE = "INSERT OR IGNORE INTO presence SELECT id, ?2 FROM callers WHERE key = ?1"
_ADD_HOUR = "INSERT INTO timeline VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET count = count + excluded.count"

# What a caller was made to send is no need of its own (see `store`).
_FORM = ",".join(f"'{refusal.slug}'" for refusal in FORM_REFUSALS)
_PIVOT = ", ".join(f"ifnull(sum(count) FILTER (WHERE session = '{name}'), 0) AS {name}" for name in SESSIONS)
_ALL_TIME = f"SELECT caller, min(first_seen) AS first_seen, max(last_seen) AS last_seen, {_PIVOT} FROM sessions GROUP BY caller"  # noqa: S608, E501
_SINCE = f"""
SELECT caller, min(hour) AS first_seen,
  (SELECT max(last_seen) FROM sessions WHERE sessions.caller = hours.caller) AS last_seen, {_PIVOT}
FROM hours WHERE hour >= :since AND NOT (decision = 'refused' AND reason IN ({_FORM})) GROUP BY caller
"""  # noqa: S608
_READ = """
SELECT key, exe, script, user, uid, unit, coalesce(image, container), pod, client, advice, fix, credentials,
  cause, {time}(s.first_seen), {time}(s.last_seen),
  s.legacy, s.fallback, s.hardened, s.token, s.bypass, {refused}
FROM callers JOIN ({sessions}) AS s ON s.caller = callers.id
"""
_REFUSED_SINCE = """ifnull((SELECT sum(count) FROM hours WHERE hours.caller = callers.id
  AND decision = 'refused' AND hour >= :since), 0)"""


class MergedCaller(NamedTuple):
    """One caller over all hosts. Times are Unix seconds, absent facts None; `sessions` has a count for each
    kind; `cause`: why its last fallback's call with a token had failed; `hosts` None: not known."""

    exe: str | None
    script: str | None
    user: str | None
    uid: int | None
    unit: str | None
    container: str | None
    pod: str | None
    client: Client
    advice: str | None
    fix: str | None
    credentials: bool | None
    cause: str | None
    first_seen: float | None
    last_seen: float | None
    sessions: dict[str, int]
    refused: int
    hosts: int | None
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fix:
    """One thing to do: for how many callers on how many hosts (None: not known), one of them by name.
    `text` None: the client is not known; `legacy` False: fallbacks, which need no code change."""

    text: str | None
    legacy: bool
    callers: int
    hosts: int | None
    example: str | None


@dataclass(frozen=True, slots=True)
class HostGap:
    """A time that was not watched on one host. Unix seconds."""

    host: str
    begin: float
    end: float
    reason: str


@dataclass(frozen=True, slots=True)
class _Rows:
    """What one ledger holds, read whole before any of it is added."""

    callers: list[tuple[Any, ...]]
    keys: list[tuple[int, bytes]]
    items: list[tuple[int, str]]
    hours: list[tuple[int, str, str, int]]

    @classmethod
    def of(cls, ledger: sqlite3.Connection, clock: Clock, since: float | None) -> _Rows:
        """Raises sqlite3.Error."""
        ledger.create_function("true_time", 1, clock.time)
        query = _READ.format(
            sessions=_ALL_TIME if since is None else _SINCE,
            refused="refused" if since is None else _REFUSED_SINCE,
            time="true_time" if clock.was_wrong else "",
        )
        begin = (-(2**62) if since is None else int(since) // _HOUR * _HOUR,)
        return cls(
            ledger.execute(query, {"since": begin[0]}).fetchall(),
            ledger.execute("SELECT id, key FROM callers WHERE last_seen >= ?", begin).fetchall(),
            ledger.execute("SELECT caller, path FROM items WHERE last_seen >= ?", begin).fetchall(),
            ledger.execute(
                "SELECT hour, session, decision, count FROM timeline WHERE hour >= ?", begin
            ).fetchall(),
        )


class Merge:
    """Callers of many ledgers and logs. A context manager: its file is gone at the end."""

    def __init__(self, since: float | None = None) -> None:
        """`since`: what was seen before (Unix seconds; by the hour) does not count."""
        self.since = since
        self._directory = tempfile.TemporaryDirectory(prefix="imds-proxy-report-")
        self._db = sqlite3.connect(Path(self._directory.name) / "merge.db", isolation_level=None)
        # A scratch file, in one transaction that is never taken back: what a ledger holds is read before.
        for pragma in ("page_size = 8192", "journal_mode = OFF", "synchronous = OFF", "cache_size = -131072"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")
        self.begin: float | None = None
        self.end: float | None = None
        self.gaps: list[HostGap] = []
        self._watched_whole, self._ledgers = True, 0

    def __enter__(self) -> Merge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self._directory.cleanup()

    def add_ledger(self, path: Path) -> bool:
        """Adds a ledger, whole or not at all; False for one that was added before. Raises NotALedger."""
        ledger = open_to_read(path)
        try:
            number, host = identity_of(ledger)
            if self._db.execute("SELECT 1 FROM ledgers WHERE id = ?", (f"{number} {host}",)).fetchone():
                return False
            spans, losses = spans_of(ledger), losses_of(ledger)
            clock = Clock(spans)
            rows = _Rows.of(ledger, clock, self.since)
        except sqlite3.Error as error:
            raise NotALedger(str(error)) from None
        finally:
            ledger.close()
        self._db.execute("INSERT INTO ledgers VALUES (?)", (f"{number} {host}",))
        self._add_rows(rows, self._host(host, "ledger"))
        self._judge(spans, losses, clock, host)
        self._ledgers += 1
        return True

    def _judge(self, spans: Sequence[Span], losses: Sequence[Gap], clock: Clock, host: str) -> None:
        watched = [clock.span(span) for span in spans]
        begin = self.since if self.since is not None else min((span.begin for span in watched), default=0.0)
        end = max((span.end for span in watched), default=0.0)
        if begin >= end:
            self._watched_whole = False
            return
        self._span(begin, end)
        found = gaps(watched, losses, begin, end)
        self._watched_whole &= not found
        self.gaps += [
            HostGap(host, gap.begin, gap.end, gap.reason) for gap in found[: _MAX_GAPS - len(self.gaps)]
        ]

    def _add_rows(self, rows: _Rows, host: int) -> None:
        self._db.executemany(_ADD, rows.callers)
        ours, ids = self._db.cursor(), {}
        for number, key in rows.keys:
            row = ours.execute("SELECT id FROM callers WHERE key = ?", (key,)).fetchone()
            if row is not None:
                ids[number] = row[0]
        present = [(caller, host) for caller in ids.values()]
        self._db.executemany("INSERT OR IGNORE INTO presence VALUES (?,?)", present)
        items = [(ids[caller], path) for caller, path in rows.items if caller in ids]
        self._db.executemany("INSERT OR IGNORE INTO items VALUES (?,?)", items)
        self._db.executemany(_ADD_HOUR, rows.hours)

    def add_log(self, callers: Iterable[LoggedCaller], hosts: Collection[str]) -> None:
        """Adds what a log says of callers, and the hosts that it names."""
        numbers: list[int] = []
        for one in callers:
            if len(numbers) != len(hosts):  # a log names its host as it is read
                numbers = [self._host(host, "log") for host in hosts]
            who = one.who
            facts = (
                who.key,
                who.exe,
                who.script,
                who.user,
                who.uid,
                who.unit,
                who.image or who.container,
            )
            counts = [one.sessions.get(name, 0) for name in SESSIONS]
            client = None if one.client is None else json.dumps(one.client)
            said = (client, one.advice, one.fix, one.credentials, one.cause)
            row = (*facts, who.pod, *said, one.first, one.last, *counts)
            self._db.execute(_ADD, (*row, one.refused))
            self._db.executemany(_ADD_ITEM, [(who.key, item) for item in sorted(one.items)])
            # A file that names several hosts does not say whose callers these are.
            if len(numbers) == 1:
                self._db.execute(_ADD_PRESENCE, (who.key, numbers[0]))
            if one.first is not None and one.last is not None:
                self._span(one.first, one.last)
        self._watched_whole = False  # a log cannot tell whether it saw everything

    @property
    def verdict(self) -> Verdict:
        """Whether the proxy may be removed, over all hosts: the worst of them."""
        needing, bypassing = self._db.execute(
            "SELECT count(*) FILTER (WHERE legacy OR fallback), count(*) FILTER (WHERE bypass) FROM callers"
        ).fetchone()
        if needing:
            return Verdict.NOT_READY
        known = self._watched_whole and self._ledgers and not bypassing
        return Verdict.READY if known else Verdict.UNKNOWN

    @property
    def doubled(self) -> list[str]:
        """Hosts of which both a ledger and a log were added: their calls count twice."""
        rows = self._db.execute("SELECT name FROM hosts WHERE ledger AND log ORDER BY name")
        return [name for (name,) in rows]

    def callers(self, *, needing_change: bool = False) -> Iterator[MergedCaller]:
        """The callers, those in normal mode first, then the busiest."""
        where = "WHERE legacy OR fallback OR bypass" if needing_change else ""
        # The sorter takes as much memory as the cache may: nothing is looked up at random any more.
        self._db.execute("PRAGMA cache_size = -32768")
        rows = self._db.execute(
            f"SELECT {_FACTS}, {_SUMS}, {_PATHS}, {_HOSTS} FROM callers {where}"  # noqa: S608  (our own words)
            " ORDER BY legacy DESC, fallback DESC, hardened DESC, exe, script, id"
        )
        for _, exe, script, user, uid, unit, container, pod, client, *rest in rows:
            advice, fix, credentials, cause, first, last, *counts, refused, paths, hosts = rest
            yield MergedCaller(
                *(exe, script, user, uid, unit, container, pod),
                client_of(client),
                advice,
                fix,
                None if credentials is None else bool(credentials),
                cause,
                first,
                last,
                dict(zip(SESSIONS, counts, strict=True)),
                refused,
                hosts or None,
                tuple(paths.split("\n")) if paths else (),
            )

    def fixes(self) -> list[Fix]:
        """What is to be done, each with its callers and hosts: what helps most hosts first."""
        rows = self._db.execute(
            "SELECT CASE WHEN legacy THEN coalesce(fix, advice) END, legacy > 0, count(DISTINCT callers.id),"
            " count(DISTINCT host), min(name) FROM callers LEFT JOIN presence ON caller = callers.id"
            " LEFT JOIN hosts ON hosts.id = host WHERE legacy OR fallback GROUP BY 1, 2"
            " ORDER BY 4 DESC, 3 DESC, 1"
        )
        return [
            Fix(text, bool(legacy), callers, hosts or None, example)
            for text, legacy, callers, hosts, example in rows
        ]

    def timeline(self) -> list[tuple[int, str, str, int]]:
        """Hour (Unix seconds), session, decision and requests, of ledgers, in the order of time."""
        return list(self._db.execute("SELECT * FROM timeline ORDER BY hour, session, decision"))

    @property
    def hosts(self) -> int:
        """How many hosts were named."""
        return int(self._db.execute("SELECT count(*) FROM hosts").fetchone()[0])

    def _span(self, begin: float, end: float) -> None:
        self.begin = begin if self.begin is None else min(self.begin, begin)
        self.end = end if self.end is None else max(self.end, end)

    def _host(self, name: str, kind: str) -> int:
        self._db.execute("INSERT OR IGNORE INTO hosts (name) VALUES (?)", (name,))
        self._db.execute(f"UPDATE hosts SET {kind} = 1 WHERE name = ?", (name,))  # noqa: S608  (our own words)
        return int(self._db.execute("SELECT id FROM hosts WHERE name = ?", (name,)).fetchone()[0])
