"""`imds-proxy report`, as it is typed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from histories import alike, batch, opened
from imds_proxy.ledger.report_command import moment

REPORT = [sys.executable, "-m", "imds_proxy", "report"]


def typed(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*REPORT, *map(str, words)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with a ledger, and a configuration that names it."""
    store = opened(tmp_path / "state" / "ledger.db")
    store.write([batch(0, (alike(), 3))])
    store.close()
    (tmp_path / "config.yaml").write_text(f"state: {tmp_path}/state\n")
    return tmp_path


def test_without_files_this_machines_ledger_is_reported(state: Path) -> None:
    done = typed("-c", state / "config.yaml")
    assert done.returncode == 0, done.stderr
    assert "/usr/bin/curl (cron.service)" in done.stdout


def test_ledgers_logs_and_directories_are_merged_and_a_bad_file_is_said_and_passed_over(state: Path) -> None:
    line = {"time": "2026-11-24T00:00:00Z", "event": "caller-summary", "exe": "/opt/x", "user": "x"}
    ready = json.dumps({"event": "ready", "host": "web-7"})
    (state / "daemon.log").write_text(
        f"{ready}\n" + json.dumps({**line, "sessions": {"legacy": 2}}) + "\nnot ours\n"
    )
    broken = state / "broken.db"
    broken.write_bytes(b"SQLite format 3\0" + b"\xa5" * 4096)
    done = typed("--json", state / "state", state / "daemon.log", broken, state / "none")
    assert done.returncode == 1
    callers = {caller["exe"]: caller["hosts"] for caller in json.loads(done.stdout)["callers"]}
    assert callers == {"/usr/bin/curl": 1, "/opt/x": 1}
    assert f"{broken}: " in done.stderr
    assert "none: No such file" in done.stderr
    assert "passed over 1 lines" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_and_a_csv_are_written(state: Path) -> None:
    page = state / "report.html"
    assert typed("--html", page, state / "state").returncode == 0
    assert "/usr/bin/curl" in page.read_text()
    assert typed("--html", state / "none" / "x.html", state / "state").returncode == 1
    assert typed("--csv", state / "state").stdout.startswith("exe,script,user")


def test_the_same_ledger_twice_counts_once(state: Path) -> None:
    done = typed("--json", state / "state", state / "state" / "ledger.db")
    assert json.loads(done.stdout)["callers"][0]["sessions"]["legacy"] == 3
    assert "counts once" in done.stderr


def test_wrong_words_are_refused_with_what_is_allowed(state: Path) -> None:
    done = typed("--since", "yesterday")
    assert done.returncode == 2
    assert "14d, 12h" in done.stderr
    assert typed("--json", "--csv").returncode == 2
    (state / "bad.yaml").write_text("ledger: {keep: forever}\n")
    done = typed("-c", state / "bad.yaml")
    assert done.returncode == 78
    assert "bad.yaml:1: ledger.keep" in done.stderr


def test_since_is_a_duration_or_a_time() -> None:
    assert moment("14d") == pytest.approx(time.time() - 14 * 86400, abs=60)
    assert moment("1970-01-02") == moment("1970-01-02T00:00:00Z") == 86400
    with pytest.raises(argparse.ArgumentTypeError):
        moment("14")


def test_since_leaves_out_what_was_seen_before(state: Path) -> None:
    done = typed("--json", "--since", "2026-10-01T00:00:00Z", state / "state")
    assert json.loads(done.stdout)["callers"] == []
