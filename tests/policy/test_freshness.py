"""How long answers are good."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.policy.freshness import Freshness, Left, Lifetime, ServiceClock, of_credentials
from imds_proxy.protocol.credentials import CredentialTimes
from imds_proxy.protocol.profile import ItemClass

TIMES = Freshness(
    {
        ItemClass.STATIC: 1000.0,
        ItemClass.SLOW: 60.0,
        ItemClass.VOLATILE: 2.0,
        ItemClass.UNKNOWN: 2.0,
        ItemClass.IDENTITY: 0.0,
        ItemClass.CREDENTIALS: math.inf,
    },
    missing=5.0,
    stale=300.0,
)
SIX_HOURS = 21600.0
MINUTE = 60.0


@pytest.mark.parametrize(
    ("item", "status", "lifetime"),
    [
        (ItemClass.STATIC, 200, Lifetime(1010.0, 1310.0)),
        (ItemClass.SLOW, 200, Lifetime(70.0, 370.0)),
        (ItemClass.VOLATILE, 200, Lifetime(12.0, 12.0)),  # never beyond its time
        (ItemClass.STATIC, 404, Lifetime(15.0, 15.0)),
        (ItemClass.VOLATILE, 404, Lifetime(12.0, 12.0)),
        (ItemClass.CREDENTIALS, 404, Lifetime(15.0, 15.0)),
        (ItemClass.IDENTITY, 200, None),  # 0: not kept
        (ItemClass.IDENTITY, 404, None),
        (ItemClass.NEVER, 200, None),
        (ItemClass.NEVER, 404, None),
        (ItemClass.TOKEN, 200, None),
    ],
)
def test_each_class_has_its_time(item: ItemClass, status: int, lifetime: Lifetime | None) -> None:
    assert TIMES.of(item, False, status, 10.0) == lifetime


@pytest.mark.parametrize("status", [201, 206, 301, 400, 401, 403, 405, 429, 500, 502, 503])
def test_only_an_item_and_its_absence_are_kept(status: int) -> None:
    assert TIMES.of(ItemClass.STATIC, False, status, 0.0) is None


def test_an_unknown_item_with_a_query_is_not_kept_for_it_may_be_a_nonce() -> None:
    assert TIMES.of(ItemClass.UNKNOWN, True, 200, 0.0) is None
    assert TIMES.of(ItemClass.UNKNOWN, False, 200, 0.0) == Lifetime(2.0, 2.0)


def credentials(left: float | None, chance: float = 0.0, life: float = SIX_HOURS) -> Lifetime | None:
    known = None if left is None else Left(left, left)
    return of_credentials(CredentialTimes(0.0, life), known, 0.0, chance)


def test_a_set_is_fresh_until_half_an_hour_before_its_end() -> None:
    end = 5 * 3600.0
    assert credentials(end) == Lifetime(end - 1800, end - 300, end - 900, end - 1800)
    assert credentials(end, chance=1.0) == Lifetime(end - 1800, end - 300, end - 900, end - 1500)


@pytest.mark.parametrize(
    ("minutes", "seconds"), [(30, 10.0), (20, 10.0), (15.01, 0.6), (15, 0.0), (10, 0.0), (5.01, 0.0)]
)
def test_in_its_last_half_hour_it_is_good_for_seconds_and_in_its_last_quarter_to_be_asked_for(
    minutes: float, seconds: float
) -> None:
    lifetime = credentials(minutes * MINUTE)
    assert lifetime is not None
    assert lifetime.fresh_until == pytest.approx(seconds)
    assert lifetime.stale_until == pytest.approx((minutes - 5) * MINUTE)
    assert lifetime.urgent_from == pytest.approx((minutes - 15) * MINUTE)


@pytest.mark.parametrize("minutes", [5, 1, 0, -1, -600])
def test_in_its_last_five_minutes_it_is_not_kept(minutes: float) -> None:
    assert credentials(minutes * MINUTE) is None


def test_where_the_services_clock_is_not_known_a_set_is_kept_no_longer_than_it_surely_lives() -> None:
    # A successor is offered 30 minutes before the end: what is given now has these at least.
    assert credentials(None) == Lifetime(600.0, 1500.0)


def test_a_successor_is_not_asked_for_before_it_is_surely_offered_and_an_end_is_where_it_may_be() -> None:
    lifetime = of_credentials(CredentialTimes(0.0, SIX_HOURS), Left(4000.0, 4001.0), 0.0, 0.0)
    assert lifetime == Lifetime(2201.0, 3700.0, 3100.0, 2201.0)


def test_a_set_lives_no_longer_than_its_whole_life_whatever_a_date_says() -> None:
    assert credentials(SIX_HOURS + 7200) == credentials(SIX_HOURS)


def test_a_set_of_a_minute_is_asked_for_once_a_second_at_most_before_it_is_urgent() -> None:
    lifetime = credentials(4.5, life=60.0)  # a successor is offered 5 s before its end
    assert lifetime is not None
    assert lifetime.fresh_until == 1.0


@given(st.floats(1, SIX_HOURS), st.floats(-100, SIX_HOURS), st.floats(0, 9), st.floats(0, 1))
def test_no_set_is_good_to_its_end(life: float, left: float, width: float, chance: float) -> None:
    lifetime = of_credentials(CredentialTimes(0.0, life), Left(left, left + width), 0.0, chance)
    if lifetime is not None:
        assert 0 <= lifetime.fresh_until <= lifetime.stale_until < left
        assert lifetime.renew_at is not None
        assert lifetime.renew_at >= 0


def test_what_is_kept_for_less_time_is_kept_no_longer() -> None:
    assert Lifetime(10.0, 20.0).at_most(5.0, 30.0) == Lifetime(5.0, 20.0)


def test_time_is_the_services_and_a_date_gives_bounds() -> None:
    clock = ServiceClock()
    assert clock.left(5000.0, 0.0) is None
    clock.heard(4000.0, 10.0, 10.0)
    assert clock.left(5000.0, 10.0) == Left(999.0, 1000.0)
    assert clock.left(5000.0, 110.0) == Left(899.0, 900.0)


def test_a_date_that_came_late_makes_no_time() -> None:
    clock = ServiceClock()
    clock.heard(4000.0, 10.0, 14.0)  # made at some time in these 4 s
    assert clock.left(5000.0, 14.0) == Left(995.0, 1000.0)
    clock.heard(4005.0, 15.0, 15.0)
    assert clock.left(5000.0, 15.0) == Left(994.0, 995.0)


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 4.0), st.floats(0, 1)), min_size=1))
def test_the_true_time_is_within_the_bounds_however_slow_the_answers(
    answers: list[tuple[float, float, float]],
) -> None:
    clock, now = ServiceClock(), 0.0
    for pause, way, part in answers:
        asked = now + pause
        now = asked + way
        clock.heard(float(int(5000.0 + asked + way * part)), asked, now)
    left = clock.left(9000.0, now)
    assert left is not None
    assert left.least - 1e-6 <= 9000.0 - (5000.0 + now) <= left.most + 1e-6
    assert clock.jumps == 0


def test_a_clock_that_drifts_is_followed() -> None:
    clock = ServiceClock()
    clock.heard(4000.0, 0.0, 0.0)
    clock.heard(7603.0, 3600.0, 3600.0)
    assert clock.left(8000.0, 3600.0) == Left(396.0, 397.0)
    assert clock.jumps == 0


def test_a_jump_of_the_services_clock_is_noticed_and_the_way_of_an_answer_is_none() -> None:
    clock = ServiceClock()
    clock.heard(4000.0, 10.0, 10.0)
    clock.heard(4001.0, 11.0, 16.0)
    assert clock.jumps == 0
    clock.heard(9000.0, 17.0, 17.0)
    assert clock.jumps == 1
    assert clock.left(9100.0, 17.0) == Left(99.0, 100.0)
    clock.heard(4008.0, 18.0, 18.0)
    assert clock.jumps == 2
