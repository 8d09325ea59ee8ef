"""Ledgers and logs of many hosts as one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from histories import CURL, DAY, START, WATCH, alike, batch, opened
from imds_proxy.ledger.entries import Batch, Described, Moment, StableCaller
from imds_proxy.ledger.logs import LoggedCaller
from imds_proxy.ledger.merging import Fix, HostGap, Merge
from imds_proxy.ledger.schema import NotALedger

OLD_SDK = StableCaller("/usr/bin/python3", "/srv/app.py", "app", 1000, "app.service")


@pytest.fixture
def merge() -> Iterator[Merge]:
    with Merge() as merge:
        yield merge


def ledger(path: Path, *batches: Batch | Described, host: str = "web-1") -> Path:
    store = opened(path, host=host)
    store.write(batches)
    store.close()
    return path


def verdict(merge: Merge) -> str:
    return merge.verdict.value


def test_one_caller_of_many_hosts_is_one_row(tmp_path: Path, merge: Merge) -> None:
    for number in range(3):
        path = tmp_path / f"{number}.db"
        merge.add_ledger(
            ledger(path, batch(number, (alike(), 2), (alike(session="hardened"), 1)), host=f"h{number}")
        )
    (caller,) = merge.callers()
    assert (caller.exe, caller.user, caller.unit) == ("/usr/bin/curl", "root", "cron.service")
    assert caller.sessions == {"legacy": 6, "fallback": 0, "hardened": 3, "token": 0, "bypass": 0}
    assert (caller.first_seen, caller.last_seen, caller.hosts) == (START, START + 2, 3)
    assert caller.items == ("/latest/meta-data/mac",)
    assert merge.hosts == 3


def test_a_ledger_counts_once(tmp_path: Path, merge: Merge) -> None:
    path = ledger(tmp_path / "a.db", batch(0, (alike(), 2)))
    assert merge.add_ledger(path)
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    assert not merge.add_ledger(copy)
    assert [caller.sessions["legacy"] for caller in merge.callers()] == [2]


def test_containers_of_one_image_are_one_caller_over_hosts(tmp_path: Path, merge: Merge) -> None:
    for number in range(2):
        who = StableCaller("/app", user="root", container=f"id{number}", image="shop:3")
        merge.add_ledger(ledger(tmp_path / f"{number}.db", batch(0, (alike(who), 1)), host=f"h{number}"))
    (caller,) = merge.callers()
    assert (caller.container, caller.hosts) == ("shop:3", 2)


def test_what_was_seen_before_since_does_not_count(tmp_path: Path) -> None:
    path = ledger(
        tmp_path / "a.db",
        batch(0, (alike(), 5), (alike(OLD_SDK), 1)),
        batch(DAY, (alike(), 2), (replace(alike(decision="refused", reason="relayed"), path=None), 9)),
        batch(2 * DAY, (alike(session="hardened"), 1)),
    )
    with Merge(since=START + DAY / 2) as merge:
        merge.add_ledger(path)
        (caller,) = merge.callers()
        assert caller.sessions["legacy"] == 2
        assert caller.sessions["hardened"] == 1
        assert caller.refused == 9
        assert merge.begin == START + DAY / 2


def test_a_description_goes_with_its_caller_and_the_latest_counts(tmp_path: Path, merge: Merge) -> None:
    found = Described(
        OLD_SDK.key, {"name": "sdk", "version": "0.3.2", "where": "/srv"}, (), "Do it.", "do it", True
    )
    merge.add_ledger(ledger(tmp_path / "a.db", batch(0, (alike(OLD_SDK), 1)), found))
    merge.add_ledger(ledger(tmp_path / "b.db", batch(0, (alike(OLD_SDK), 1)), host="web-2"))
    (caller,) = merge.callers()
    assert caller.client == ("sdk", "0.3.2", "/srv")
    assert (caller.advice, caller.fix, caller.credentials) == ("Do it.", "do it", True)


def test_fixes_group_callers_and_hosts(tmp_path: Path, merge: Merge) -> None:
    other = replace(OLD_SDK, script="/srv/other.py")
    for number in range(3):
        entries: list[Batch | Described] = [batch(0, (alike(OLD_SDK), 1), (alike(other), 1))]
        entries += [
            Described(one.key, None, (), f"in {one.script}: upgrade", "upgrade") for one in (OLD_SDK, other)
        ]
        merge.add_ledger(ledger(tmp_path / f"{number}.db", *entries, host=f"h{number}"))
    merge.add_ledger(
        ledger(
            tmp_path / "x.db",
            batch(0, (alike(), 1), (alike(session="fallback", cause="deadline"), 1)),
            host="h9",
        )
    )
    quiet = StableCaller("/quiet", user="root")
    merge.add_ledger(
        ledger(tmp_path / "y.db", batch(0, (alike(quiet, "fallback", cause="left"), 1)), host="h8")
    )
    assert merge.fixes() == [
        Fix("upgrade", True, 2, 3, "h0"),
        Fix(None, False, 1, 1, "h8"),
        Fix(None, True, 1, 1, "h9"),
    ]
    assert {caller.cause for caller in merge.callers()} == {None, "deadline", "left"}


def test_logs_and_ledgers_agree_on_who_a_caller_is(tmp_path: Path, merge: Merge) -> None:
    merge.add_ledger(ledger(tmp_path / "a.db", batch(0, (alike(), 2))))
    logged = LoggedCaller(replace(CURL, uid=0), {"legacy": 3}, 1, START, START + 5, {"/latest/user-data"})
    merge.add_log([logged], ["web-2"])
    (caller,) = merge.callers()
    assert (caller.sessions["legacy"], caller.refused, caller.hosts) == (5, 1, 2)
    assert caller.items == ("/latest/meta-data/mac", "/latest/user-data")
    merge.add_log([logged], ["web-1"])
    assert merge.doubled == ["web-1"]


def test_a_log_without_a_host_invents_none(merge: Merge) -> None:
    merge.add_log([LoggedCaller(CURL, {"legacy": 3})], [])
    (caller,) = merge.callers()
    assert (caller.hosts, caller.first_seen, caller.last_seen) == (None, None, None)
    assert verdict(merge) == "NOT READY"


def test_the_verdict_is_the_worst_of_all_hosts_and_gaps_have_their_host(tmp_path: Path, merge: Merge) -> None:
    day = [batch(second, boot=0.0) for second in range(0, 100, 5)]
    merge.add_ledger(ledger(tmp_path / "a.db", *day, host="good"))
    assert verdict(merge) == "READY"
    merge.add_ledger(ledger(tmp_path / "b.db", *day[:4], *day[16:], host="gap"))
    assert verdict(merge) == "UNKNOWN"
    assert merge.gaps == [HostGap("gap", START + 15, START + 80, "not-running")]
    merge.add_ledger(ledger(tmp_path / "c.db", *day, batch(96, (alike(), 1), boot=0.0), host="legacy"))
    assert verdict(merge) == "NOT READY"


def test_hours_of_all_hosts_make_one_timeline(tmp_path: Path, merge: Merge) -> None:
    for number in range(2):
        path = tmp_path / f"{number}.db"
        merge.add_ledger(ledger(path, batch(0, (alike(), 2)), batch(3600, (alike(), 1)), host=f"h{number}"))
    hour = int(START // 3600 * 3600)
    assert merge.timeline() == [(hour, "legacy", "allowed", 4), (hour + 3600, "legacy", "allowed", 2)]


def test_times_of_a_wrong_clock_are_corrected(tmp_path: Path, merge: Merge) -> None:
    booted = Batch(Moment(100.0, 50.0), WATCH, [(alike(), 1)])  # 1970
    merge.add_ledger(ledger(tmp_path / "a.db", booted, Batch(Moment(START, 55.0), WATCH)))
    (caller,) = merge.callers()
    assert caller.last_seen == START - 5


def test_a_broken_ledger_adds_nothing(tmp_path: Path, merge: Merge) -> None:
    path = ledger(tmp_path / "a.db", *[batch(n, (alike(path=f"/{n}"), 1)) for n in range(500)])
    raw = path.read_bytes()
    path.write_bytes(raw[:8192] + b"\xa5" * (len(raw) - 8192))
    with pytest.raises(NotALedger):
        merge.add_ledger(path)
    assert list(merge.callers()) == []
    assert merge.hosts == 0
    assert verdict(merge) == "UNKNOWN"
    path.write_bytes(raw)
    assert merge.add_ledger(path)


def test_a_ledger_is_read_while_the_daemon_writes_to_it(tmp_path: Path, merge: Merge) -> None:
    store = opened(tmp_path / "a.db")
    store.write([batch(0, (alike(), 1))])
    assert merge.add_ledger(tmp_path / "a.db")
    store.write([batch(1, (alike(), 1))])
    store.close()
    assert [caller.sessions["legacy"] for caller in merge.callers()] == [1]
    with sqlite3.connect(tmp_path / "a.db") as whole:
        assert whole.execute("SELECT sum(count) FROM hours").fetchone() == (2,)
    whole.close()
