"""Limits of callers: one bucket for each identity, a rule's own rate apart."""

from __future__ import annotations

import dataclasses

from imds_proxy.policy.caller import Identity
from imds_proxy.policy.limits import CallerLimits
from imds_proxy.policy.matching import CallerMatch
from imds_proxy.policy.rules import Rate, Rule, RulePaths

A, B = Identity(1, unit="a.service"), Identity(1, unit="b.service")
RULE = Rule("slow", CallerMatch(), RulePaths((), frozenset(), ()), rate=Rate(1, 2))


def test_a_burst_goes_then_the_wait_is_told() -> None:
    limits = CallerLimits(Rate(10, 3), Rate(1, 1))
    assert [limits.hit(A, None, 0.0) for _ in range(3)] == [0, 0, 0]
    assert limits.hit(A, None, 0.0) == 0.1
    assert limits.hit(A, None, 0.1) == 0


def test_callers_do_not_share_and_neither_do_hits_and_misses() -> None:
    limits = CallerLimits(Rate(1, 1), Rate(1, 1))
    assert limits.hit(A, None, 0.0) == 0
    assert limits.hit(A, None, 0.0) > 0
    assert limits.hit(B, None, 0.0) == 0
    assert limits.miss(A, 0.0) == 0
    assert limits.miss(A, 0.0) > 0


def test_a_rules_rate_takes_the_place_of_the_general_one() -> None:
    limits = CallerLimits(Rate(1000, 1000), Rate(1, 1))
    assert [limits.hit(A, RULE, 0.0) for _ in range(3)] == [0, 0, 1.0]
    assert limits.hit(A, dataclasses.replace(RULE, rate=None), 0.0) == 0


def test_a_cold_crawl_of_46_items_passes_by_default() -> None:
    from imds_proxy.config import Limits

    limits = CallerLimits(Limits().hits, Limits().misses)
    assert all(limits.hit(A, None, 0.0) == limits.miss(A, 0.0) == 0 for _ in range(46))


def test_a_limit_that_stays_the_same_carries_over_a_reload() -> None:
    limits = CallerLimits(Rate(1, 1), Rate(1, 1))
    limits.hit(A, None, 0.0)
    limits.miss(A, 0.0)
    limits.change(Rate(1, 1), Rate(5, 5))
    assert limits.hit(A, None, 0.0) > 0
    assert limits.miss(A, 0.0) == 0
