"""The ledger's file over its versions."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from imds_proxy.ledger.schema import MIGRATIONS, VERSION, NewerLedger, NotALedger, migrate, open_to_read


def made(path: Path, *statements: str) -> Path:
    with sqlite3.connect(path, isolation_level=None) as connection:
        migrate(connection)
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return path


def test_a_new_file_gets_the_newest_version(tmp_path: Path) -> None:
    reading = open_to_read(made(tmp_path / "ledger.db"))
    assert reading.execute("PRAGMA user_version").fetchone() == (VERSION,)
    reading.close()


def test_an_older_file_is_brought_forward_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db", "INSERT INTO agents (text) VALUES ('curl')")
    steps = (*MIGRATIONS, "ALTER TABLE agents ADD COLUMN note TEXT DEFAULT 'none'")
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, steps)
    assert connection.execute("SELECT text, note FROM agents").fetchall() == [("curl", "none")]
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
    migrate(connection, steps)
    connection.close()


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db")
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.Error):
        migrate(connection, (*MIGRATIONS, "CREATE TABLE extra (a); CREATE TABLE agents (a)"))
    connection.close()
    reading = open_to_read(path)
    assert reading.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
    reading.close()


def test_a_newer_file_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db", "PRAGMA user_version = 99")
    with pytest.raises(NewerLedger, match=f"schema version 99; this imds-proxy knows up to {VERSION}"):
        open_to_read(path)


def test_what_is_no_ledger_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotALedger):
        open_to_read(tmp_path / "none.db")
    text = tmp_path / "text"
    text.write_text("not a database, though it is long enough to be looked at\n" * 100)
    with pytest.raises(NotALedger, match="not a database"):
        open_to_read(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(NotALedger, match="another program's"):
        open_to_read(other)


def test_a_ledger_on_a_read_only_medium_is_read(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db", "PRAGMA journal_mode = WAL", "INSERT INTO agents (text) VALUES ('x')")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "ledger.db").write_bytes(path.read_bytes())
    (copy / "ledger.db").chmod(0o400)
    copy.chmod(0o500)
    reading = open_to_read(copy / "ledger.db")
    assert reading.execute("SELECT text FROM agents").fetchall() == [("x",)]
    reading.close()
    copy.chmod(0o700)


def test_reading_leaves_nothing_beside_a_ledger(tmp_path: Path) -> None:
    path = made(tmp_path / "ledger.db", "PRAGMA journal_mode = WAL", "INSERT INTO agents (text) VALUES ('x')")
    reading = open_to_read(path)
    assert reading.execute("SELECT text FROM agents").fetchall() == [("x",)]
    reading.close()
    assert list(tmp_path.iterdir()) == [path]
