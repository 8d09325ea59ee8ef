"""What the bench makes of its measurements; and a short real run of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "bench" / "run.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_run", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_run"] = module
    spec.loader.exec_module(module)
    return module


def test_wrk_reports_are_read(bench: ModuleType) -> None:
    text = "  300 requests in 1.00s\n  Non-2xx or 3xx responses: 7\nRequests/sec:  299.50\n"
    sample = bench.parse_wrk(text, 0.03)
    assert (sample.rate, round(sample.cpu), sample.failed) == (299.5, 100, 7)


def test_no_figures_are_an_error(bench: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="no figures"):
        bench.parse_wrk("unable to connect", 1.0)


def test_rows_hold_median_spread_and_ratios(bench: ModuleType) -> None:
    samples = {
        ("keepalive", "imds-proxy"): [bench.Sample(rate, 10.0, 0) for rate in (90.0, 100.0, 110.0)],
        ("keepalive", "nginx proxy_pass"): [bench.Sample(50.0, 20.0, 0)],
    }
    first = bench.rows(samples)[0]
    assert (first["value"], first["spread"], first["ratio_to"]) == (100.0, 0.2, {"nginx proxy_pass": 2.0})


@pytest.mark.slow
def test_a_quick_run_measures_every_target(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json", str(report), "connect"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = {row["target"] for row in json.loads(report.read_text())}
    assert found == {"imds-proxy", "service direct", "nginx proxy_pass", "nginx proxy_cache"}
    assert "| connect | imds-proxy |" in done.stdout


def test_an_unknown_workload_is_wrong_usage() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "no-such"], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2
    assert "no-such" in done.stderr
