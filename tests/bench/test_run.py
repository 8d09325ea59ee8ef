"""The bench as a command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "run.py"


def test_an_unknown_workload_is_wrong_usage_and_says_which_there_are() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "no-such"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "no-such" in done.stderr
    assert "keepalive" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_quick_run_measures_and_reports(tmp_path: Path) -> None:
    report, picture = tmp_path / "report.json", tmp_path / "plot.svg"
    command = [
        sys.executable,
        str(SCRIPT),
        "--quick",
        "--json",
        str(report),
        "--svg",
        str(picture),
        "session",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    metrics = {row["metric"] for row in found if row["target"] == "imds-proxy"}
    assert {"cpu_us_per_request", "p99_us", "rss_mib", "upstream_calls"} <= metrics
    assert "| session | imds-proxy |" in done.stdout
    assert picture.read_text().startswith("<svg ")
