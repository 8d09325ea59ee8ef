from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.emulator.throttle import Bucket


def test_the_burst_is_served_then_the_rate() -> None:
    bucket = Bucket(rate=2, burst=3)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert bucket.take(0.5)
    assert not bucket.take(0.5)


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = Bucket(rate=1000, burst=1)
    assert bucket.take(10)
    assert not bucket.take(9)


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 2), min_size=1, max_size=100))
def test_no_more_is_served_than_burst_and_rate_allow(rate: float, burst: int, gaps: list[float]) -> None:
    bucket = Bucket(rate, burst)
    now, served = 0.0, 0
    for gap in gaps:
        now += gap
        served += bucket.take(now)
    assert served <= burst + rate * (now - gaps[0]) + 1e-6
