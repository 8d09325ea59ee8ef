"""How much memory the daemon takes: the bench's own measurement, held to its bounds (issue 12, 4)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "bench" / "memory.py"
FRESH, CROWDED = 40.0, 120.0  # MiB


@pytest.mark.slow
def test_a_fresh_daemon_and_one_with_ten_thousand_idle_connections_stay_small(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--json", str(report)], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rows = {(row["workload"], row["target"]): row for row in json.loads(report.read_text())}
    fresh, crowded = rows["fresh", "imds-proxy"], rows["10000 idle connections", "imds-proxy"]
    assert 5 < fresh["value"] <= FRESH
    assert fresh["value"] < crowded["value"] <= CROWDED
    assert set(crowded["ratio_to"]) == {"nginx proxy_cache"}


def test_more_connections_than_that_are_wrong_usage() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--connections", "0"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "from 1 to 10000" in done.stderr
