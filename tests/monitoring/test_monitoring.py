"""The alert rules fire when they should, and rules and dashboard ask for metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
MONITORING = CHECKOUT / "packaging/monitoring"
METRICS = CHECKOUT / "imds_proxy/server/metrics.py"


def names() -> set[str]:
    """Metrics as a scrape shows them: counters end in _total."""
    text = METRICS.read_text()
    known = set(re.findall(r'"(imds_proxy_[a-z_]+)"', text))
    return known | {f"{name}_total" for name in known}


def expressions() -> list[str]:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules), *panels]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_asks_for_metrics_that_there_are(expression: str) -> None:
    asked = set(re.findall(r"imds_proxy_[a-z_]+", expression))
    assert asked
    assert asked <= names()


def test_the_rules_fire_when_they_should_and_only_then() -> None:
    words = ["promtool", "test", "rules", "alerts_test.yaml"]
    done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
    tested: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("alerts_test.yaml").read_text())[
        "tests"
    ]
    fired = {one["alertname"] for test in tested for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules}


def test_the_dashboards_panels_do_not_overlap_and_have_their_own_ids() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
