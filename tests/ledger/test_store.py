"""The ledger as the daemon writes it: sums, spans, bounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from histories import CURL, START, WATCH, alike, batch, opened
from imds_proxy.ledger.entries import Batch, Described, Installed, Lost, Moment, StableCaller
from imds_proxy.ledger.schema import open_to_read
from imds_proxy.ledger.store import LedgerStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def store(path: Path) -> Iterator[LedgerStore]:
    store = opened(path)
    yield store
    store.close()


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    reading = open_to_read(path)
    try:
        return reading.execute(query).fetchall()
    finally:
        reading.close()


def test_requests_that_are_alike_add_up_by_hour(store: LedgerStore, path: Path) -> None:
    store.write(
        [batch(0, (alike(), 2)), batch(1, (alike(), 3), (alike(decision="refused", reason="rule"), 1))]
    )
    store.write([batch(3600, (alike(), 7))])
    found = rows(
        path, "SELECT hour, session, item, decision, reason, count FROM hours ORDER BY hour, decision"
    )
    first = START // 3600 * 3600
    assert found == [
        (first, "legacy", "static", "allowed", "", 5),
        (first, "legacy", "static", "refused", "rule", 1),
        (first + 3600, "legacy", "static", "allowed", "", 7),
    ]
    assert rows(path, "SELECT session, first_seen, last_seen, count FROM sessions") == [
        ("legacy", START, START + 3600, 13)
    ]
    assert rows(path, "SELECT path, last_seen FROM items") == [("/latest/meta-data/mac", START + 3600)]


def test_a_caller_has_one_row_whatever_its_processes(store: LedgerStore, path: Path) -> None:
    store.write([batch(0, (alike(), 1)), batch(5, (alike(replace(CURL, cmdline="curl y")), 1))])
    assert rows(path, "SELECT exe, user, unit, cmdline, first_seen, last_seen FROM callers") == [
        ("/usr/bin/curl", "root", "cron.service", "curl y", START, START + 5)
    ]


def test_what_a_caller_was_made_to_send_is_no_need_of_it(store: LedgerStore, path: Path) -> None:
    relayed = replace(alike(decision="refused", reason="relayed"), path=None)
    store.write([batch(0, (relayed, 4))])
    assert rows(path, "SELECT count FROM hours") == [(4,)]
    assert rows(path, "SELECT * FROM sessions") == []


def test_a_connection_that_goes_on_past_the_proxy_is_seen_again_and_counted_once(
    store: LedgerStore, path: Path
) -> None:
    past = replace(alike(session="bypass"), path=None)
    store.write([batch(0, (past, 1))])
    store.write([batch(60, (past, 0))])
    assert rows(path, "SELECT session, first_seen, last_seen, count FROM sessions") == [
        ("bypass", START, START + 60, 1)
    ]


def test_a_description_goes_to_its_caller(store: LedgerStore, path: Path) -> None:
    found = Described(
        CURL.key, {"name": "curl", "version": "8", "where": "/usr/bin"}, ({"kind": "x"},), "Do."
    )
    store.write([batch(0, (alike(), 1)), found, Installed("cloud-init", "22.1", "/usr/bin", START)])
    assert rows(path, "SELECT client, findings, advice FROM callers") == [
        ('{"name": "curl", "version": "8", "where": "/usr/bin"}', '[{"kind": "x"}]', "Do.")
    ]
    store.write([batch(1, (alike(), 1))])
    assert rows(path, "SELECT advice FROM callers") == [("Do.",)]
    assert rows(path, "SELECT name, version FROM programs") == [("cloud-init", "22.1")]


def test_a_span_goes_on_while_nothing_changes_and_survives_the_daemon(path: Path) -> None:
    store = opened(path)
    store.write([batch(second) for second in range(10)])
    store.write([batch(10, watch=replace(WATCH, interception="down")), batch(11, stopping=True)])
    store.close()
    spans = rows(path, "SELECT begin - 1790000000, end - 1790000000, interception, stopped FROM spans")
    assert spans == [(0, 9, "redirect", 0), (9, 10, "down", 0), (10, 11, "redirect", 1)]


def test_a_pause_is_not_bridged(store: LedgerStore, path: Path) -> None:
    store.write([batch(0), batch(5), batch(65), batch(70)])
    assert rows(path, "SELECT begin_boot, end_boot FROM spans") == [(1000, 1005), (1065, 1070)]


def test_a_clock_that_steps_begins_a_span_whose_other_clock_goes_on(store: LedgerStore, path: Path) -> None:
    ahead = Moment(START + 86401, 1001.0)
    store.write([batch(0), Batch(ahead, WATCH)])
    assert rows(path, "SELECT begin, end, begin_boot, end_boot FROM spans") == [
        (START, START, 1000, 1000),
        (START + 86400, START + 86401, 1000, 1001),
    ]


def test_a_batch_is_written_whole_or_not_at_all(store: LedgerStore, path: Path) -> None:
    store.write([batch(0, (alike(), 1))])
    with pytest.raises(sqlite3.Error):
        store.write([batch(1, (alike(), 1)), Lost(0, 1, None, 1)])  # type: ignore[arg-type]
    assert rows(path, "SELECT count FROM hours") == [(1,)]
    store.write([batch(1, (alike(), 1)), Lost(START, START + 1, "the disk stalled", 1)])
    assert rows(path, "SELECT count FROM hours") == [(2,)]
    assert rows(path, "SELECT reason FROM losses") == [("the disk stalled",)]


def test_one_identity_cannot_fill_the_ledger_with_programs(store: LedgerStore, path: Path) -> None:
    many = [StableCaller(f"/tmp/{number}", user="app", uid=1000) for number in range(2000)]
    store.write([batch(0, *[(alike(one), 1) for one in many])])
    store.write([batch(1, *[(alike(one), 1) for one in many])])
    assert rows(path, "SELECT count(*), count(exe) FROM callers") == [(513, 512)]
    assert rows(path, "SELECT sum(count) FROM hours") == [(4000,)]


def test_paths_of_a_caller_are_bounded(store: LedgerStore, path: Path) -> None:
    store.write([batch(0, *[(alike(path=f"/latest/{n}"), 1) for n in range(3000)])])
    assert rows(path, "SELECT count(*) FROM items") == [(1024,)]
    assert rows(path, "SELECT sum(count) FROM hours") == [(3000,)]


def test_agents_are_bounded(store: LedgerStore, path: Path) -> None:
    store.write([batch(0, *[(alike(agent=f"agent {n}"), 1) for n in range(3000)])])
    assert rows(path, "SELECT count(*) <= 2049 FROM agents") == [(1,)]
    assert rows(path, "SELECT sum(count) FROM hours") == [(3000,)]


def test_the_ledger_is_the_daemons_alone(store: LedgerStore, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert rows(path, "SELECT value FROM meta WHERE key = 'host'") == [("web-1",)]
