"""The budget: never over rate and burst, halved once per round trip, regained by steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.policy.budget import AdaptiveBudget
from imds_proxy.policy.rules import Rate

RATE = Rate(50, 100)


def drain(budget: AdaptiveBudget, now: float, sparse: bool = True) -> int:
    taken = 0
    while budget.wait(now, sparse) == 0:
        budget.take(now)
        taken += 1
        assert taken < 10_000
    return taken


def test_a_burst_goes_at_once_and_half_of_it_is_kept_for_who_asks_seldom() -> None:
    budget = AdaptiveBudget(RATE, 0.0)
    assert drain(budget, 0.0, sparse=False) == 50
    assert drain(budget, 0.0, sparse=True) == 50
    assert budget.wait(0.0, sparse=True) == pytest.approx(1 / 50)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), max_size=100))
def test_no_window_ever_sees_more_than_budget_and_burst(steps: list[tuple[float, bool]]) -> None:
    budget, now, calls = AdaptiveBudget(Rate(10, 5), 0.0), 0.0, []
    for pause, sparse in steps:
        now += pause
        while budget.wait(now, sparse) == 0:
            budget.take(now)
            calls.append(now)
    for first in range(len(calls)):
        for last in range(first, len(calls)):
            assert last - first + 1 <= 10 * (calls[last] - calls[first]) + 5 + 1e-6


def test_throttling_halves_the_rate_once_for_all_calls_of_one_round_trip() -> None:
    budget = AdaptiveBudget(RATE, 0.0)
    for _ in range(10):
        budget.overloaded(sent_at=0.0, now=0.1)
    assert budget.rate == 25
    budget.overloaded(sent_at=0.2, now=0.3)
    assert budget.rate == pytest.approx(12.75, rel=0.05)


def test_it_recovers_additively_and_stops_at_the_full_rate() -> None:
    budget = AdaptiveBudget(RATE, 0.0)
    budget.overloaded(0.0, 0.0)
    budget.wait(2.0, sparse=True)
    assert budget.rate == pytest.approx(30)
    budget.wait(1000.0, sparse=True)
    assert budget.rate == 50


def test_it_never_falls_so_low_that_recovery_could_not_be_seen() -> None:
    budget = AdaptiveBudget(RATE, 0.0)
    for number in range(100):
        budget.overloaded(float(number) / 1000, float(number) / 1000)
    assert budget.rate >= 50 / 32


def test_retry_after_is_honoured_within_reason() -> None:
    budget = AdaptiveBudget(RATE, 0.0)
    budget.overloaded(0.0, 0.0, retry_after=3)
    assert budget.wait(1.0, sparse=True) == pytest.approx(2.0)
    assert budget.wait(3.0, sparse=True) == 0
    budget.overloaded(4.0, 4.0, retry_after=1e9)
    assert budget.wait(4.0, sparse=True) <= 60


def test_a_reload_keeps_what_was_learned_in_proportion() -> None:
    budget = AdaptiveBudget(RATE, 0.0)
    drain(budget, 0.0)
    budget.overloaded(0.0, 0.0)
    budget.change(Rate(100, 100), 0.0)
    assert budget.rate == 50
    assert budget.wait(0.0, sparse=True) > 0
    budget.change(Rate(100, 100), 0.0)
    assert budget.rate == 50
