"""The ledger's file: its tables, its version, and how an older file becomes a newer one.

Knows SQL and nothing of who writes or reads. Times are Unix seconds; absent facts are NULL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

APPLICATION_ID = 0x494D4450  # "IMDP", in the file's header

# One script for each version. Never changed once released: another is added.
MIGRATIONS: tuple[str, ...] = (
    """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID; -- id, host, created

-- One row for each stable identity (`key` is its digest), never for a process.
CREATE TABLE callers (
  id INTEGER PRIMARY KEY,
  key BLOB NOT NULL UNIQUE,
  exe TEXT, script TEXT, user TEXT, uid INTEGER, unit TEXT,
  container TEXT,            -- id, the latest where `image` is known
  image TEXT, pod TEXT,      -- pod: namespace/owner
  origin TEXT,               -- of a caller that could not be named: its address, or why
  cmdline TEXT,              -- an example, secrets removed
  first_seen REAL NOT NULL, last_seen REAL NOT NULL,
  refused INTEGER NOT NULL DEFAULT 0,
  cause TEXT,                -- of its last fallback: why its call with a token had failed
  client TEXT,               -- JSON {name, version, where}
  findings TEXT,             -- JSON [{...}], what was noticed beside the client
  advice TEXT,               -- sentences, a line each
  fix TEXT,                  -- the same without places, to group by; NULL: nothing is to be changed, or known
  credentials INTEGER        -- whether it reads any; NULL: not known
);
CREATE INDEX callers_by_identity ON callers (uid, unit, container);

-- Sums of an hour. decision: allowed | would-refuse | refused | failed, reason: the refusal's slug;
-- cause: of a fallback, why its call with a token had failed; agent: in `agents`.
CREATE TABLE hours (
  caller INTEGER NOT NULL, hour INTEGER NOT NULL, session TEXT NOT NULL, item TEXT NOT NULL,
  decision TEXT NOT NULL, reason TEXT NOT NULL, cause TEXT NOT NULL, agent INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (caller, hour, session, item, decision, reason, cause, agent)
) WITHOUT ROWID;
CREATE INDEX hours_by_time ON hours (hour);

-- The same over all callers: what a chart shows. It outlives the hours that make room.
CREATE TABLE timeline (
  hour INTEGER NOT NULL, session TEXT NOT NULL, decision TEXT NOT NULL, count INTEGER NOT NULL,
  PRIMARY KEY (hour, session, decision)
) WITHOUT ROWID;

-- When a caller was seen in each kind of session (legacy, fallback, hardened, token, bypass), to the second.
-- bypass: it held a connection to the service that did not pass the proxy.
CREATE TABLE sessions (
  caller INTEGER NOT NULL, session TEXT NOT NULL, first_seen REAL NOT NULL, last_seen REAL NOT NULL,
  count INTEGER NOT NULL, PRIMARY KEY (caller, session)
) WITHOUT ROWID;

-- Paths that a caller asked for: canonical, without a query.
CREATE TABLE items (
  caller INTEGER NOT NULL, path TEXT NOT NULL, last_seen REAL NOT NULL, PRIMARY KEY (caller, path)
) WITHOUT ROWID;

-- What callers say in User-Agent.
CREATE TABLE agents (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);

-- When the proxy watched, and how. A row goes on while nothing changes; `*_boot` is CLOCK_BOOTTIME of that
-- boot, true where the wall clock was not. interception: redirect | address | observe | down | none.
CREATE TABLE spans (
  id INTEGER PRIMARY KEY, boot TEXT NOT NULL, begin REAL NOT NULL, end REAL NOT NULL,
  begin_boot REAL NOT NULL, end_boot REAL NOT NULL,
  mode TEXT NOT NULL, enforcement TEXT NOT NULL, interception TEXT NOT NULL, version TEXT NOT NULL,
  stopped INTEGER NOT NULL DEFAULT 0  -- 1: the end was an orderly stop
);

-- Times of which counts are missing, and why.
CREATE TABLE losses (begin REAL NOT NULL, end REAL NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL);

-- What is installed on this machine, called or not: cloud-init, agents. location NULL: it is not there;
-- advice: what must be done before normal mode is refused, NULL for nothing.
CREATE TABLE programs (
  name TEXT PRIMARY KEY, version TEXT, location TEXT, advice TEXT, seen REAL NOT NULL
) WITHOUT ROWID;
""",
)
VERSION = len(MIGRATIONS)


class NotALedger(Exception):
    """The file cannot be used; the text says why, for people."""


class NewerLedger(NotALedger):
    """It was written by a newer imds-proxy."""


def migrate(connection: sqlite3.Connection, steps: Sequence[str] = MIGRATIONS) -> None:
    """Brings the tables to the newest version, each step whole or not at all.

    Raises NotALedger, NewerLedger, or sqlite3.Error for a file that is broken or cannot be written.
    """
    version = _version_of(connection, len(steps))
    for number, script in enumerate(steps[version:], version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;{script};"
                f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def open_to_read(path: Path) -> sqlite3.Connection:
    """A ledger, read only, also while a daemon writes to it. Raises NotALedger with a sentence.

    One of an older version is migrated in memory; the file stays as it is.
    """
    try:
        connection = _opened(path)
        version = _version_of(connection, VERSION)
        if version == 0:
            raise NotALedger("it has no tables")
        if version < VERSION:
            copy = sqlite3.connect(":memory:", isolation_level=None)
            connection.backup(copy)
            connection.close()
            migrate(copy)
            return copy
    except sqlite3.Error as error:
        raise NotALedger(str(error)) from None
    return connection


def _opened(path: Path) -> sqlite3.Connection:
    # Without a log beside it nobody writes to it. `immutable` then reads it without leaving files there, and
    # from where none can be made.
    uri = path.absolute().as_uri()
    written = path.with_name(f"{path.name}-wal").exists()
    for flags in ("?mode=ro", "?mode=ro&immutable=1")[0 if written else 1 :]:
        connection = sqlite3.connect(uri + flags, uri=True, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            if flags.endswith("immutable=1"):
                raise
            continue
        return connection
    raise AssertionError("the loop returns or raises")


def _version_of(connection: sqlite3.Connection, newest: int) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (tables or version or application):
        raise NotALedger("it is another program's database")
    if version > newest:
        raise NewerLedger(f"it has schema version {version}; this imds-proxy knows up to {newest}")
    return int(version)
