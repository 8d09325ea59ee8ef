"""The report: merged from logs, inventing nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.ledger.report import Report, render_table, run

CURL = {"exe": "/usr/bin/curl", "user": "root", "unit": "cron.service"}


def line(event: str, time: str = "2026-11-24T00:00:00Z", **facts: Any) -> str:
    return json.dumps({"time": time, "event": event, "message": "", **facts}) + "\n"


def summary(time: str = "2026-11-24T00:01:00Z", **sessions: int) -> str:
    return line("caller-summary", time, **CURL, sessions=sessions, items=["/latest/meta-data/mac"])


def report_of(*lines: str) -> Report:
    report = Report()
    report.read(lines)
    return report


def test_summaries_of_one_caller_add_up() -> None:
    (caller,) = report_of(summary(legacy=2), summary(legacy=3, hardened=1)).as_json()["callers"]
    assert caller["sessions"] == {"legacy": 5, "fallback": 0, "hardened": 1}
    assert caller["items"] == ["/latest/meta-data/mac"]


def test_the_contract_has_every_key_and_null_for_what_is_not_known() -> None:
    report = report_of(summary(legacy=1)).as_json()
    assert set(report) == {"schema", "window", "verdict", "callers"}
    (caller,) = report["callers"]
    assert (caller["script"], caller["container"], caller["pod"], caller["hosts"]) == (None,) * 4
    assert caller["client"] == {"name": None, "version": None, "where": None}
    assert report["window"] == {"from": "2026-11-24T00:01:00Z", "to": "2026-11-24T00:01:00Z", "gaps": []}


def test_a_caller_announced_and_never_summarised_counts_once() -> None:
    announced = line("legacy-caller", **CURL, session="legacy", path="/latest/user-data")
    (caller,) = report_of(announced).as_json()["callers"]
    assert caller["sessions"]["legacy"] == 1
    (caller,) = report_of(announced, summary(legacy=4)).as_json()["callers"]
    assert caller["sessions"]["legacy"] == 4


def test_hardened_callers_need_no_change_and_a_fallback_no_code_change() -> None:
    assert report_of(summary(hardened=9)).needing_change() == []
    assert report_of(summary(hardened=9)).as_json()["verdict"] == "UNKNOWN"
    fallback = report_of(summary(fallback=1))
    assert fallback.as_json()["verdict"] == "NOT READY"
    assert "needs no code change" in render_table(fallback)


@given(st.text(), st.text())
def test_hostile_names_are_inert_in_the_table(exe: str, user: str) -> None:
    hostile = line("caller-summary", exe=exe, user=user, sessions={"legacy": 1}, items=[])
    table = render_table(report_of(hostile))
    assert table.isascii()
    assert all(part.isprintable() for part in table.split("\n"))


@given(st.lists(st.one_of(st.text(), st.just("[]"), st.just('{"event": 1}'), st.just("null")), max_size=5))
def test_lines_that_are_not_the_daemons_are_passed_over(lines: list[str]) -> None:
    report_of(*lines).as_json()


def test_logs_are_merged_and_a_missing_one_is_said(tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("a", "b")]
    for log in logs:
        log.write_text(summary(legacy=1))
    out, err = io.StringIO(), io.StringIO()
    assert run(logs, True, out, err) == 0
    assert json.loads(out.getvalue())["callers"][0]["sessions"]["legacy"] == 2
    assert run([tmp_path / "none"], False, out, err) == 1
    assert "none: No such file" in err.getvalue()
