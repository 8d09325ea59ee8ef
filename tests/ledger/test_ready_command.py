"""`imds-proxy ready`, as it is typed."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from histories import DAY, START, WATCH, alike, batch, opened
from imds_proxy.ledger.entries import Batch, Installed
from imds_proxy.ledger.ready_command import add_arguments, run

NOW = START + 20 * DAY
CLOUD_INIT = Installed("cloud-init", "24.1", "/usr/bin/cloud-init", START)


def watched(*more: Batch, until: float = 20 * DAY) -> list[Batch | Installed]:
    """Batches of a daemon that watched for twenty days, as the store would join them."""
    step = 9.0
    last = int(until // step)
    # The store bridges ten seconds; days are bridged by writing the first and the last of a span alone.
    return [CLOUD_INIT, batch(0), *more, batch(last * step), batch(until)]


def ledger(path: Path, entries: list[Batch | Installed], host: str = "web-1") -> Path:
    store = opened(path, host=host)
    store.write(entries)
    # Two thousand batches a day would say the same: one span from the first to the last.
    store._db.execute("DELETE FROM spans WHERE id != (SELECT max(id) FROM spans)")
    store._db.execute("UPDATE spans SET begin = ?, begin_boot = 1000", (START,))
    store.close()
    return path


def typed(*words: str | Path, own: bool = False) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = io.StringIO()
    boot = ("boot-1" if own else "boot-9", NOW, 1000.0 + 20 * DAY)
    code = run(parser.parse_args(list(map(str, words))), NOW, boot, out, io.StringIO())
    return code, out.getvalue()


def asked(*words: str | Path) -> dict[str, Any]:
    _, text = typed("--json", *words)
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_quiet_fortnight_is_ready(tmp_path: Path) -> None:
    path = ledger(tmp_path / "a.db", watched())
    code, text = typed(path)
    assert code == 0
    assert text.splitlines() == [
        "READY      may HttpTokens become required while the proxy is in place (by the last 14 days)",
        "READY      may the proxy be removed, with HttpTokens required (by the last 14 days)",
    ]


def test_a_caller_in_the_way_is_named_and_each_question_has_its_own_answer(tmp_path: Path) -> None:
    path = ledger(tmp_path / "a.db", watched(batch(15 * DAY, (alike(), 1))))
    code, text = typed(path)
    assert code == 1
    assert "NOT READY  may the proxy be removed" in text
    assert "  /usr/bin/curl (cron.service): speaks normal mode" in text
    assert typed("--for", "required", path)[0] == 0
    assert typed("--days", "4", path)[0] == 0
    assert asked(path)["questions"]["removed"]["reasons"][0]["subject"] == "/usr/bin/curl (cron.service)"


def test_a_gap_is_unknown_and_named(tmp_path: Path) -> None:
    path = ledger(tmp_path / "a.db", watched())
    code, text = typed("--days", "30", path)
    assert code == 3
    assert "the proxy was not running from" in text
    found = asked("--days", "30", path)
    assert found["verdict"] == "UNKNOWN"
    assert found["window"]["gaps"][0]["reason"] == "not-running"


def test_a_fleet_is_as_ready_as_its_worst_host(tmp_path: Path) -> None:
    ledger(tmp_path / "all" / "a.db", watched(), host="good")
    ledger(tmp_path / "all" / "b.db", watched(batch(19 * DAY, (alike(), 1))), host="bad")
    code, text = typed(tmp_path / "all")
    assert code == 1
    assert "  bad: /usr/bin/curl" in text
    assert "good:" not in text
    audited = [
        replace(one, watch=replace(WATCH, enforcement="audit")) if isinstance(one, Batch) else one
        for one in watched()
    ]
    ledger(tmp_path / "all" / "b.db2", audited, host="audited")
    assert "  audited: policy.enforcement: is audit" in typed(tmp_path / "all")[1]


def test_a_ledger_that_was_copied_lately_is_judged_by_its_own_end(tmp_path: Path) -> None:
    path = ledger(tmp_path / "a.db", watched(until=20 * DAY - 3600))
    assert typed(path)[0] == 0
    path = ledger(tmp_path / "old.db", watched(until=17 * DAY))
    assert typed(path)[0] == 3


def test_on_its_own_machine_a_daemon_that_stopped_is_a_gap(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"state: {tmp_path}/state\n")
    ledger(tmp_path / "state" / "ledger.db", watched(until=20 * DAY - 3600))
    assert typed("-c", config, own=True)[0] == 3


def test_no_ledger_is_unknown_and_says_where_it_was_looked_for(tmp_path: Path) -> None:
    code, text = typed(tmp_path / "none.db")
    assert code == 3
    assert "none.db" in text
    assert "does the daemon run" in text


def test_as_a_command_it_exits_with_the_verdict(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "imds_proxy", "ready"]
    done = subprocess.run(
        [*words, str(tmp_path / "none.db"), "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["schema"] == 1
    done = subprocess.run([*words, "--days", "0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "allowed is 1 to 3660" in done.stderr


@pytest.mark.parametrize("days", ["nan", "inf", "-1", "x", "9999"])
def test_a_window_that_is_none_is_refused(days: str) -> None:
    with pytest.raises(SystemExit):
        typed("--days", days)
