"""The token bucket: never more than burst plus rate times time, whatever the clock does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.policy.bucket import TokenBucket

STEPS = st.lists(st.floats(-100, 100, allow_nan=False), max_size=60)


def test_it_starts_full_and_fills_at_its_rate() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=10.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(10.4)
    assert bucket.take(10.5)
    assert not bucket.take(10.5)
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1), (1, -1)])
def test_rate_and_burst_are_positive(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(rate, burst, 0.0)


@given(rate=st.floats(0.1, 50), burst=st.floats(1, 50), steps=STEPS)
def test_it_never_gives_more_than_its_burst_and_rate_allow(
    rate: float, burst: float, steps: list[float]
) -> None:
    bucket, now, latest, taken = TokenBucket(rate, burst, 0.0), 0.0, 0.0, 0
    for step in steps:
        now += step
        latest = max(latest, now)
        taken += bucket.take(now)
        assert taken <= burst + rate * latest + 1e-6


@given(burst=st.integers(1, 20), back=st.floats(0, 1e6))
def test_a_clock_that_steps_back_neither_adds_nor_takes_away(burst: int, back: float) -> None:
    bucket = TokenBucket(1, burst, 1000.0)
    assert [bucket.take(1000.0 - back) for _ in range(burst + 1)] == [True] * burst + [False]


LENDING = st.lists(
    st.tuples(st.floats(0, 5), st.sampled_from(("take", "lend", "use", "settle"))), max_size=60
)


@given(rate=st.floats(0.1, 50), burst=st.floats(1, 500), steps=LENDING)
def test_in_no_time_more_is_used_here_and_there_than_burst_and_rate_allow(
    rate: float, burst: float, steps: list[tuple[float, str]]
) -> None:
    """Whenever what was lent is used, and however late that is said."""
    bucket, now, held, used = TokenBucket(rate, burst, 0.0), 0.0, 0, 0
    given: list[tuple[float, int]] = []
    for step, what in steps:
        now += step
        if what == "take":
            given.append((now, bucket.take(now)))
        elif what == "lend":
            held += bucket.lend(64, now)
            assert held + used <= burst / 4
        elif what == "use":
            given.append((now, held))
            used, held = used + held, 0
        else:
            bucket.settle(used + held, held, now)
            held = used = 0
        since, total = now, 0
        for at, count in reversed(given):
            since, total = at, total + count
            assert total <= burst + rate * (now - since) + 1e-6
    bucket.settle(used + held, held, now)
    assert bucket.level(now + burst / rate + 1) == pytest.approx(burst)


def test_little_is_lent_of_little() -> None:
    bucket = TokenBucket(1, 7, 0.0)
    assert bucket.lend(64, 0.0) == 0
    bucket = TokenBucket(1, 80, 0.0)
    assert [bucket.lend(64, 0.0) for _ in range(4)] == [10, 8, 2, 0]
