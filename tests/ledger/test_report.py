"""What the report says, in each of its forms."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import CURL, alike, batch, opened
from imds_proxy.ledger.entries import Described, StableCaller
from imds_proxy.ledger.logs import LoggedCaller
from imds_proxy.ledger.merging import Merge
from imds_proxy.ledger.report import as_json, iso, render_table, shown, write_csv, write_json

CALLER_KEYS = [
    *("exe", "script", "user", "unit", "container", "pod", "hosts", "sessions", "refused"),
    *("first_seen", "last_seen", "items", "client", "credentials", "advice"),
]


@pytest.fixture
def merge(tmp_path: Path) -> Iterator[Merge]:
    """A legacy, a fallback and a hardened caller on one host."""
    store = opened(tmp_path / "ledger.db")
    known = StableCaller("/usr/bin/python3", "/srv/app.py", "app", 1000, "app.service")
    new = StableCaller("/opt/new", user="new", uid=2)
    store.write(
        [
            batch(
                0, (alike(), 3), (alike(known, "fallback", cause="deadline"), 1), (alike(new, "hardened"), 9)
            ),
            Described(
                CURL.key, {"name": "curl", "version": "8", "where": None}, (), "Fetch a token.\nSo:", "token"
            ),
        ]
    )
    store.close()
    with Merge() as merge:
        merge.add_ledger(tmp_path / "ledger.db")
        yield merge


def logged(**sessions: int) -> Merge:
    merge = Merge()
    merge.add_log([LoggedCaller(CURL, sessions)], [])
    return merge


def test_the_contract_has_every_key_and_null_for_what_is_not_known() -> None:
    with logged(legacy=1) as merge:
        report = as_json(merge)
    assert set(report) == {"schema", "window", "verdict", "callers"}
    assert report["window"] == {"from": None, "to": None, "gaps": []}
    (caller,) = report["callers"]
    assert list(caller) == CALLER_KEYS
    assert (caller["script"], caller["container"], caller["pod"], caller["hosts"]) == (None,) * 4
    assert (caller["first_seen"], caller["last_seen"]) == (None, None)
    assert caller["client"] == {"name": None, "version": None, "where": None}
    assert caller["sessions"] == {"legacy": 1, "fallback": 0, "hardened": 0}


def test_the_contract_is_filled_from_a_ledger(merge: Merge) -> None:
    report = as_json(merge)
    assert report["schema"] == 1
    assert report["verdict"] == "NOT READY"
    legacy, fallback, hardened = report["callers"]
    assert legacy["client"] == {"name": "curl", "version": "8", "where": None}
    assert legacy["advice"] == "Fetch a token.\nSo:"
    assert legacy["hosts"] == 1
    assert legacy["last_seen"] == "2026-09-21T14:13:20Z"
    assert fallback["advice"] == "needs no code change: its call with a token failed because of deadline"
    assert hardened["advice"] is None


def test_json_is_written_a_caller_at_a_time_and_is_the_same(merge: Merge) -> None:
    out = io.StringIO()
    write_json(merge, out)
    assert json.loads(out.getvalue()) == as_json(merge)
    with Merge() as empty:
        out = io.StringIO()
        write_json(empty, out)
        assert json.loads(out.getvalue())["callers"] == []


def test_the_table_names_callers_and_groups_by_fix(merge: Merge) -> None:
    table = render_table(merge)
    lines = table.splitlines()
    assert "what to change" in lines[0]
    assert "/usr/bin/curl (cron.service)" in lines[2]
    assert "3 legacy" in lines[2]
    assert "2026-09-21 14:13" in lines[2]
    assert lines[2].endswith("Fetch a token.")
    assert "needs no code change" in lines[3]
    assert "/opt/new" not in table
    assert "  1 host (1 caller): token [web-1]" in table


def test_callers_without_credentials_stand_apart() -> None:
    probe = LoggedCaller(replace(CURL, exe="/usr/bin/agent"), {"legacy": 5}, credentials=False)
    with Merge() as merge:
        merge.add_log([probe, LoggedCaller(CURL, {"legacy": 1}, credentials=True)], [])
        lines = render_table(merge).splitlines()
    apart = lines.index("These read no credentials:")
    assert any("/usr/bin/curl" in line for line in lines[2:apart])
    assert "/usr/bin/agent" in lines[apart + 1]


@pytest.mark.parametrize(
    ("cause", "said"), [("token:deadline", "token PUT"), ("hardened:status-404", "GET with a token")]
)
def test_a_fallback_says_which_of_its_calls_failed(cause: str, said: str) -> None:
    with Merge() as merge:
        merge.add_log([LoggedCaller(CURL, {"fallback": 1}, cause=cause)], [])
        (caller,) = as_json(merge)["callers"]
    code = cause.partition(":")[2]
    assert caller["advice"] == f"needs no code change: its {said} failed because of {code}"


def test_hardened_callers_need_no_change() -> None:
    with logged(hardened=9) as merge:
        assert render_table(merge) == "No caller was seen in normal mode.\n"
        assert as_json(merge)["verdict"] == "UNKNOWN"


def test_a_very_long_table_says_where_the_rest_is() -> None:
    with Merge() as merge:
        merge.add_log([LoggedCaller(replace(CURL, exe=f"/{n}"), {"legacy": 1}) for n in range(500)], [])
        table = render_table(merge)
        assert len(table.splitlines()) < 220
        assert "--json and --csv have them all" in table
        out = io.StringIO()
        write_csv(merge, out)
        assert len(out.getvalue().splitlines()) == 501


def test_csv_has_a_line_for_each_caller(merge: Merge) -> None:
    out = io.StringIO()
    write_csv(merge, out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [row["exe"] for row in rows] == ["/usr/bin/curl", "/usr/bin/python3", "/opt/new"]
    assert (rows[0]["legacy"], rows[0]["client"], rows[0]["hosts"]) == ("3", "curl", "1")


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1"])
def test_no_name_is_a_formula_in_a_spreadsheet(name: str) -> None:
    with Merge() as merge:
        merge.add_log([LoggedCaller(replace(CURL, exe=name), {"legacy": 1})], [])
        out = io.StringIO()
        write_csv(merge, out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue()))
    assert row["exe"][0] not in "=+-@\t\r"


@given(st.text(), st.text())
def test_hostile_names_are_inert_in_the_table(exe: str, user: str) -> None:
    with Merge() as merge:
        who = StableCaller(
            exe.encode("utf-8", "replace").decode(), user=user.encode("utf-8", "replace").decode()
        )
        merge.add_log([LoggedCaller(who, {"legacy": 1})], [])
        table = render_table(merge)
    assert table.isascii()
    assert all(part.isprintable() for part in table.split("\n"))


def test_times_and_text_are_plain() -> None:
    assert iso(0) == "1970-01-01T00:00:00Z"
    assert iso(None) is None
    assert shown("a\x1b[31mé") == "a\\x1b[31m\\xe9"
