"""The model of costs: right about points that lie on its lines, and about the sums it makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import model
from model import CPU, MEMORY, Line, Machine, Row, costs_of, load_of, memory_of, page


def row(workload: str, value: float, metric: str = CPU, target: str = "imds-proxy") -> Row:
    return {"workload": workload, "target": target, "metric": metric, "value": value}


@pytest.fixture
def rows() -> list[Row]:
    """A hit takes 10 µs and 1 µs more for 1,000 rules; a caller has 10 KiB, a connection 4."""
    return [
        *(row("rules", 10 + n / 1e3, target=f"imds-proxy, {n:,} rules") for n in (1, 100, 10_000)),
        *(row(f"callers-{n}", 10) for n in (1, 10, 1000)),
        *(row(f"callers-{n}", 30 + n / 100, MEMORY) for n in (1, 10, 1000)),
        *(row(f"connections-{n}", 30 + n / 250, MEMORY) for n in (1000, 10_000)),
        row("keepalive", 10),
        row("keepalive", 31, MEMORY),
        row("connect", 50, target="imds-proxy, procfs"),
        row("session", 20),
        row("miss", 100),
        row("start", 30, MEMORY),
    ]


def test_a_line_goes_through_its_points() -> None:
    line = Line.through([(0, 1), (1, 3), (2, 5)])
    assert (line.start, line.slope) == (1, 2)


def test_each_kind_of_call_costs_what_was_measured(rows: list[Row]) -> None:
    costs = costs_of(rows)
    assert load_of(Machine("", 4, 100, hits=1, misses=0), costs) == pytest.approx(0.001)
    assert load_of(Machine("", 4, 100, connects=1, misses=0), costs) == pytest.approx(0.005)
    assert load_of(Machine("", 4, 100, pairs=1, misses=0), costs) == pytest.approx(0.002)
    assert load_of(Machine("", 4, 100, misses=10), costs) == pytest.approx(0.001)


def test_memory_grows_by_callers_and_connections(rows: list[Row]) -> None:
    assert memory_of(Machine("", 4, 500, idle=2), costs_of(rows)) == pytest.approx(30 + 10 + 4)


def test_a_machine_that_keeps_more_than_a_core_busy_is_told_how_many_workers(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "MACHINES", (Machine("large", 96, 500, connects=60, misses=0),))
    assert "| large | 1.500 | 1.56% | 3 | " in page(costs_of(rows))


def test_the_page_has_the_measured_points_and_the_largest_machine(rows: list[Row]) -> None:
    text = page(costs_of(rows))
    assert "1: 10.0, 100: 10.1, 10,000: 20.0 | +1.00 for a thousand rules" in text
    assert "96 cores, 500 pods" in text


def test_what_was_not_measured_is_named(rows: list[Row], tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([one for one in rows if one["workload"] != "miss"]))
    done = subprocess.run(
        [sys.executable, model.__file__, str(file)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr == "model: no cpu_us_per_request of 'imds-proxy': bench/run.py miss measures it\n"
