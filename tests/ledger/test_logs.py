"""Logs as callers and counts, inventing nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.ledger import logs
from imds_proxy.ledger.logs import LoggedCaller, LogReader

CURL = {"exe": "/usr/bin/curl", "user": "root", "unit": "cron.service"}


def line(event: str, time: str = "2026-11-24T00:00:00Z", **facts: Any) -> str:
    return json.dumps({"time": time, "event": event, "message": "", **facts}) + "\n"


def summary(time: str = "2026-11-24T00:01:00Z", **sessions: int) -> str:
    return line("caller-summary", time, **CURL, sessions=sessions, items=["/latest/meta-data/mac"])


def read(*lines: str, since: float | None = None) -> list[LoggedCaller]:
    return list(LogReader(since).read(lines))


def test_summaries_of_one_caller_add_up() -> None:
    (caller,) = read(summary(legacy=2), summary(legacy=3, hardened=1))
    assert caller.sessions == {"legacy": 5, "hardened": 1}
    assert caller.items == {"/latest/meta-data/mac"}
    assert (caller.who.exe, caller.who.script) == ("/usr/bin/curl", None)
    assert (caller.first, caller.last) == (1795478460.0, 1795478460.0)


def test_a_caller_announced_and_never_summarised_counts_once() -> None:
    announced = line("legacy-caller", **CURL, session="legacy", path="/latest/user-data")
    (caller,) = read(announced)
    assert (caller.sessions, caller.items) == ({"legacy": 1}, {"/latest/user-data"})
    (caller,) = read(announced, summary(legacy=4))
    assert caller.sessions == {"legacy": 4}


def test_a_fallback_says_why_its_call_with_a_token_failed() -> None:
    (caller,) = read(line("fallback-caller", **CURL, session="fallback", path="/a", cause="deadline"))
    assert caller.cause == "deadline"


def test_what_was_found_out_of_a_client_is_taken_the_latest() -> None:
    client = {"name": "oss2", "version": None, "where": "/srv"}
    first = line("client", **CURL, client=None, advice="look", fix="look", credentials=False)
    second = line("client", **CURL, client=client, advice="do this", fix="do", credentials=True)
    (caller,) = read(summary(legacy=1), first, second)
    found = (caller.client, caller.advice, caller.fix, caller.credentials)
    assert found == (client, "do this", "do", True)
    assert caller.sessions == {"legacy": 1}


def test_a_client_of_another_form_is_none() -> None:
    (caller,) = read(line("client", **CURL, client=[], advice=7, fix={}, credentials="yes"))
    assert (caller.client, caller.advice, caller.fix, caller.credentials) == (None, None, None, None)


def test_lines_before_since_do_not_count() -> None:
    old, new = summary("2026-11-01T00:00:00Z", legacy=1), summary(legacy=2)
    (caller,) = read(old, new, since=1795000000.0)
    assert caller.sessions == {"legacy": 2}


def test_the_machine_is_known_where_the_log_says_so() -> None:
    reader = LogReader()
    assert list(reader.read([line("ready", host="web-1"), summary(legacy=1)]))
    assert reader.hosts == {"web-1"}


def test_a_log_of_very_many_callers_is_handed_on_in_parts(monkeypatch: Any) -> None:
    monkeypatch.setattr(logs, "_MAX_CALLERS", 10)
    many = [line("caller-summary", exe=f"/{n % 25}", sessions={"legacy": 1}) for n in range(100)]
    assert sum(caller.sessions["legacy"] for caller in read(*many)) == 100


def test_lines_that_are_not_the_daemons_are_counted() -> None:
    reader = LogReader()
    assert list(reader.read(["not json\n", "[]\n", "\n", "[" * 100_000, '{"event": 1}\n'])) == []
    assert reader.skipped == 4


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(
    [
        "time",
        "exe",
        "script",
        "uid",
        "user",
        "unit",
        "sessions",
        "refused",
        "items",
        "session",
        "path",
        "cause",
    ]
)
events = st.sampled_from(["caller-summary", "legacy-caller", "ready", "other"])


@given(st.lists(st.tuples(events, st.dictionaries(names, values)), max_size=5))
def test_no_line_however_broken_ends_the_reading(made: list[tuple[str, dict[str, Any]]]) -> None:
    for caller in read(*[json.dumps({**facts, "event": event}) for event, facts in made]):
        assert all(count >= 0 for count in caller.sessions.values())
