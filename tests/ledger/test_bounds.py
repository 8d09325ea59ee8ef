"""The ledger stays small, and forgets no more than it must."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from histories import DAY, START, WATCH, alike, at, batch, opened
from imds_proxy.ledger.bounds import transaction
from imds_proxy.ledger.entries import Batch, Moment, StableCaller
from imds_proxy.ledger.schema import open_to_read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(open_to_read(path)) as reading:
        return reading.execute(query).fetchall()


def test_a_transaction_that_fails_leaves_nothing() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        with pytest.raises(sqlite3.Error), transaction(db):
            db.execute("CREATE TABLE a (b)")
            db.execute("nonsense")
        assert not db.in_transaction
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_what_is_older_than_keep_is_forgotten(path: Path) -> None:
    store = opened(path, keep=30 * DAY)
    old, new = StableCaller("/old", user="a"), StableCaller("/new", user="a")
    store.write([batch(0, (alike(old), 1), (alike(new), 1))])
    store.write([batch(20 * DAY, (alike(new), 1))])
    store.write([batch(31 * DAY)])
    store.write([batch(31 * DAY + second) for second in range(1, 3700, 9)])
    store.tidy(at(31 * DAY + 3700))
    store.close()
    assert rows(path, "SELECT exe FROM callers") == [("/new",)]
    assert rows(path, "SELECT count(*) FROM hours") == [(1,)]
    assert rows(path, "SELECT count(*) FROM spans WHERE begin < 1790000000 + 86400") == [(0,)]


def test_a_clock_that_was_just_set_makes_nothing_old(path: Path) -> None:
    store = opened(path, keep=30 * DAY)
    store.write([batch(0, (alike(), 1))])
    far = Moment(START + 400 * DAY, 1001.0)
    store.write([Batch(far, WATCH)])
    store.tidy(far)
    store.close()
    assert rows(path, "SELECT count(*) FROM callers") == [(1,)]


def test_what_was_seen_while_the_clock_was_wrong_is_not_as_old_as_it_looks(path: Path) -> None:
    store = opened(path, keep=30 * DAY)
    store.write([Batch(Moment(100.0, 50.0), WATCH, [(alike(), 1)])])  # 1970, and the machine has just booted
    right = [Batch(Moment(START + second, 51.0 + second), WATCH) for second in range(0, 4000, 9)]
    store.write(right)
    store.tidy(right[-1].at)
    store.close()
    assert rows(path, "SELECT count(*) FROM sessions") == [(1,)]


def test_the_file_stays_within_its_size_and_says_what_it_lost(path: Path) -> None:
    size = 1024 * 1024
    store = opened(path, size=size)
    callers = [StableCaller(f"/opt/program-{n}", user=f"user-{n // 100}", uid=n // 100) for n in range(8000)]
    for number, start in enumerate(range(0, len(callers), 200)):
        moment = number * 3600.0
        store.write([batch(moment, *[(alike(one), 1) for one in callers[start : start + 200]])])
        store.tidy(at(moment))
    store.close()
    assert path.stat().st_size <= size
    (kept,) = rows(path, "SELECT count(*) FROM callers")[0]
    assert 64 <= kept < 8000
    assert rows(path, "SELECT count(*) FROM callers WHERE exe = '/opt/program-7999'") == [(1,)]
    assert rows(path, "SELECT DISTINCT reason FROM losses") == [("ledger.size",)]
    assert rows(path, "SELECT sum(count) FROM losses") == [(8000 - kept,)]
