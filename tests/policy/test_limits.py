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


def test_an_equal_identity_has_the_same_bucket_whichever_object_it_is() -> None:
    limits = CallerLimits(Rate(1, 2), Rate(1, 2))
    again = Identity(1, unit="a.service")
    assert again is not A
    assert [limits.miss(one, 0.0) for one in (A, again)] == [0, 0]
    assert limits.miss(A, 0.0) == limits.miss(again, 0.0) == 1
    assert limits.bucket(A, None, 0.0) is limits.bucket(again, None, 0.0) is limits.bucket(A, None, 0.0)


def test_who_asks_all_the_time_never_begins_afresh_however_many_others_come() -> None:
    limits = CallerLimits(Rate(0.001, 1), Rate(1, 1))
    assert limits.hit(A, None, 0.0) == 0
    for number in range(10_000):
        assert limits.hit(Identity(number, unit="other.service"), None, 0.0) == 0
        assert limits.hit(A, None, 0.0) > 0


def test_who_has_not_been_seen_for_long_is_forgotten() -> None:
    limits = CallerLimits(Rate(0.001, 1), Rate(1, 1))
    assert limits.hit(A, None, 0.0) == 0
    for number in range(10_000):
        limits.hit(Identity(number, unit="other.service"), None, 0.0)
    assert limits.hit(A, None, 0.0) == 0
    assert len(limits._met) + len(limits._held) < 10_000


def test_after_a_change_another_bucket_is_taken_from_and_of_a_limit_that_stays_the_same() -> None:
    limits = CallerLimits(Rate(1, 2), Rate(1, 1))
    before = limits.bucket(A, None, 0.0)
    limits.change(Rate(1, 3), Rate(1, 1))
    other = limits.bucket(A, None, 0.0)
    assert other is not before
    assert [limits.hit(A, None, 0.0) for _ in range(4)] == [0, 0, 0, 1]
    limits.change(Rate(1, 3), Rate(1, 1))  # a reload: equal, and another object
    assert limits.bucket(A, None, 0.0) is other
    assert limits.hit(A, None, 0.0) == 1


def test_a_rule_of_another_rate_has_another_bucket() -> None:
    limits = CallerLimits(Rate(1000, 1000), Rate(1, 1))
    assert [limits.hit(A, RULE, 0.0) for _ in range(3)] == [0, 0, 1]
    faster = dataclasses.replace(RULE, rate=Rate(2, 1))
    assert [limits.hit(A, faster, 0.0) for _ in range(2)] == [0, 0.5]
    assert limits.hit(A, RULE, 0.0) == 1
