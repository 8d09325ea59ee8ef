"""What the daemon writes into its ledger, also when it is killed."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import counting
from imds_proxy.config import Config, Ledger, Policy, parse_address
from imds_proxy.emulator.service import Emulator
from imds_proxy.emulator.settings import Settings
from imds_proxy.ledger.schema import open_to_read
from imds_proxy.server.bookkeeping import watch_of
from imds_proxy.server.build import needs_restart
from proxy import running_proxy


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(open_to_read(path)) as reading:
        return reading.execute(query).fetchall()


def test_the_daemon_writes_who_called_for_what_and_how_it_watched(tmp_path: Path) -> None:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address, state=tmp_path) as proxy,
    ):
        for _ in range(3):
            assert proxy.get("/latest/meta-data/instance-id").status == 200
        token = proxy.put_token().body.decode()
        assert proxy.get("/latest/meta-data/instance-id", token).status == 200
        refused = proxy.request("GET", "/latest/meta-data/instance-id", {"X-Forwarded-For": "1.2.3.4"})
        assert refused.status == 403
        assert proxy.request("GET", "/latest/user-data", {"User-Agent": "curl/7 secret=x"}).status == 200
        assert proxy.stop() == 0
        ledger = tmp_path / "ledger.db"
        counts = dict(
            rows(ledger, "SELECT session || ' ' || item || ' ' || decision || reason, count FROM hours")
        )
        assert counts == {
            "legacy static allowed": 3,
            "hardened static allowed": 1,
            "token token allowed": 1,
            "legacy static refusedrelayed": 1,
            "legacy user-data allowed": 1,
        }
        assert rows(ledger, "SELECT session, count FROM sessions ORDER BY session") == [
            ("hardened", 1),
            ("legacy", 4),
            ("token", 1),
        ]
        ((exe, cmdline),) = rows(ledger, "SELECT exe, cmdline FROM callers")
        assert "python" in exe
        assert "pytest" in cmdline
        assert ("curl/7 secret=***",) in rows(ledger, "SELECT text FROM agents")
        assert rows(ledger, "SELECT mode, enforcement, interception, stopped FROM spans") == [
            ("upgrade", "audit", "none", 1)
        ]


def test_a_fallback_is_written_with_why_its_token_call_failed(tmp_path: Path) -> None:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address, state=tmp_path) as proxy,
    ):
        assert proxy.put_token(0).status == 400
        assert proxy.get("/latest/meta-data/mac").status == 200
        assert proxy.stop() == 0
        found = rows(tmp_path / "ledger.db", "SELECT session, cause FROM hours WHERE session = 'fallback'")
        assert found == [("fallback", "token:token-ttl")]


def test_without_a_ledger_no_file_is_made_and_the_log_still_sums_up(tmp_path: Path) -> None:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address, {"ledger": {"enabled": False}}, state=tmp_path) as proxy,
    ):
        assert proxy.get("/latest/meta-data/mac").status == 200
        assert proxy.stop() == 0
        assert not list(tmp_path.glob("ledger*"))
        (summary,) = [line for line in proxy.log() if line["event"] == "caller-summary"]
        assert summary["sessions"] == {"legacy": 1}


def test_a_daemon_whose_ledger_cannot_be_opened_serves_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address, {"ledger": {"path": str(tmp_path / "file" / "db")}}) as proxy,
    ):
        assert proxy.get("/latest/meta-data/mac").status == 200
        assert proxy.stop() == 0
        assert [line["event"] for line in proxy.log()].count("ledger-unwritten") == 1


def test_how_the_daemon_watches_follows_from_where_it_listens_and_the_redirect() -> None:
    config = Config()
    assert watch_of(config, "none").interception == "none"
    assert watch_of(config, "redirect").interception == "redirect"
    owner = replace(config, listen=(parse_address("100.100.100.200:80"),))
    assert watch_of(owner, "none").interception == "address"
    assert watch_of(owner, "down").interception == "down"
    enforcing = replace(config, mode="enforce", policy=replace(Policy(), enforcement="enforce"))
    watch = watch_of(enforcing, "none")
    assert (watch.mode, watch.enforcement) == ("enforce", "enforce")


def test_another_place_of_the_ledger_needs_a_restart() -> None:
    assert needs_restart(Config(), replace(Config(), ledger=Ledger(enabled=False))) == ["ledger"]


def counted_at(progress: Path, until: float) -> int:
    """Requests that had been counted by then."""
    raw = progress.read_bytes()
    whole = raw[: len(raw) // counting.PROGRESS.size * counting.PROGRESS.size]
    return max((count for when, count in counting.PROGRESS.iter_unpack(whole) if when <= until), default=0)


def kill_and_look(place: Path, number: int, alive: float, before: int) -> int:
    """Counts for `alive` seconds, is killed; what the ledger has then, of at most a second less."""
    ledger, progress = place / "ledger.db", place / f"progress-{number}"
    child = subprocess.Popen([sys.executable, counting.__file__, str(ledger), str(progress)])
    try:
        while not progress.exists():
            assert child.poll() is None
            time.sleep(0.005)
        time.sleep(alive)
    finally:
        killed = time.monotonic()
        child.kill()
        child.wait()
    with closing(sqlite3.connect(ledger)) as whole:
        assert whole.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found = int(rows(ledger, "SELECT ifnull(sum(count), 0) FROM hours")[0][0])
    assert found - before >= counted_at(progress, killed - 1.0)
    assert found - before <= counted_at(progress, killed + 1.0) + 50  # it is counted, then noted
    return found


def test_the_whole_daemon_killed_while_it_answers_loses_at_most_the_last_second(tmp_path: Path) -> None:
    with (
        Emulator(settings=Settings(http_tokens="required")) as service,
        running_proxy(service.address, state=tmp_path) as proxy,
    ):
        answered: list[float] = []
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert proxy.get("/latest/meta-data/mac").status == 200
            answered.append(time.monotonic())
        killed = time.monotonic()
        proxy.kill()
    found = int(rows(tmp_path / "ledger.db", "SELECT ifnull(sum(count), 0) FROM hours")[0][0])
    assert sum(when < killed - 1.0 for when in answered) <= found <= len(answered)


@pytest.mark.slow
def test_killed_at_a_hundred_moments_under_load_it_loses_at_most_the_last_second(tmp_path: Path) -> None:
    """Must show: the ledger opens, and what is missing is at most the last second."""
    moments = random.Random(13)

    def one_ledger(number: int) -> int:
        place = tmp_path / str(number)
        place.mkdir()
        found = 0
        for run in range(25):
            # A killed child's file may not be there yet: the next one makes it.
            found = kill_and_look(place, run, moments.uniform(0.2, 1.6), found)
        return found

    with ThreadPoolExecutor(4) as four:
        totals = list(four.map(one_ledger, range(4)))
    assert all(total > 0 for total in totals)
