"""What stands against a cutover, and what breaks one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from imds_proxy.cutover.steps import Instance, Probe, broken_by, objections

GOOD = Instance("i-a", "optional", "enabled", "linux", "img", "v2")


def test_nothing_stands_against_an_instance_that_is_ready() -> None:
    assert list(objections(GOOD, "READY")) == []


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({"http_endpoint": "disabled"}, "READY", "disabled"),
        ({"os_type": "Windows"}, "READY", "Windows"),
        ({"imds_support": "v1"}, "READY", "supports v1 only"),
        ({"imds_support": None}, "READY", "does not say"),
        ({}, None, "no verdict"),
        ({}, "NOT READY", "says NOT READY"),
        ({}, "UNKNOWN", "says UNKNOWN"),
    ],
)
def test_each_obstacle_is_named(change: dict[str, Any], verdict: str | None, said: str) -> None:
    (sentence,) = objections(replace(GOOD, **change), verdict)
    assert said in sentence


@pytest.mark.parametrize(
    ("v1", "v2", "hardened"),
    [
        (403, 200, True),
        (401, 200, True),
        (200, 200, False),
        (403, 403, False),
        (None, 200, False),
        (403, None, False),
    ],
)
def test_hardened_is_refusing_plain_gets_and_serving_tokens(
    v1: int | None, v2: int | None, hardened: bool
) -> None:
    probe = Probe(v1, v2)
    assert probe.is_hardened is hardened
    assert (broken_by(Probe(200, 200), probe, 0) is None) is hardened


def test_failures_of_callers_since_are_counted_those_before_are_not() -> None:
    before, now = Probe(200, 200, failed=7), Probe(403, 200, failed=9)
    assert broken_by(before, now, 2) is None
    assert broken_by(before, now, 1) == "2 requests of callers failed since, 1 are tolerated"
