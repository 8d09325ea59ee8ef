"""What the bench makes of its measurements."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from generator import Sample
from report import goals, plot, rows, table


def sample(cpu: float, rate: float = 100.0) -> Sample:
    return Sample(rate, cpu, 100.0, 200.0, 300.0)


SAMPLES = {
    ("keepalive", "imds-proxy"): [sample(9.0), sample(10.0), sample(11.0)],
    ("keepalive", "nginx proxy_cache"): [sample(20.0)],
    ("session", "imds-proxy"): [sample(30.0)],
}
ROWS = rows(SAMPLES, {("start", "imds-proxy", "ready_ms"): [240.0, 260.0, 251.0]})


def test_rows_hold_median_spread_and_ratios() -> None:
    first = ROWS[0]
    assert first == {
        "workload": "keepalive",
        "target": "imds-proxy",
        "metric": "cpu_us_per_request",
        "value": 10.0,
        "spread": 0.2,
        "ratio_to": {"nginx proxy_cache": 0.5},
    }


def test_a_goal_is_met_or_said_not_to_be_and_one_without_figures_is_left_out() -> None:
    said = goals(ROWS)
    assert "| cached keep-alive / nginx proxy_cache | 0.50 | 1 | yes |" in said
    assert "| PUT and GET / cached GET | 3.00 | 2.5 | **no** |" in said
    assert "| ready after exec, ms | 251.00 | 250 | **no** |" in said
    assert "10,000 rules" not in said


def test_the_table_has_a_line_for_each_target_with_cpu_relative_to_the_first() -> None:
    lines = table(ROWS).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].startswith("| keepalive | imds-proxy | 10.0 ±10% |")
    assert lines[3].endswith("| 0.50 |")


def test_the_plot_is_svg_with_a_bar_for_each_target() -> None:
    tree = ElementTree.fromstring(plot(ROWS))
    bars = [one for one in tree.iter() if one.tag.endswith("rect")]
    assert len(bars) == 1 + 3
