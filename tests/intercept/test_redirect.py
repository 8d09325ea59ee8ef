from __future__ import annotations

from dataclasses import replace

from imds_proxy.intercept.redirect import LEASE, RENEWAL, InterceptError
from plans import LISTENERS, PLAN, SERVICES


def test_each_service_has_the_listener_of_its_family() -> None:
    assert list(PLAN.pairs()) == list(zip(SERVICES, LISTENERS, strict=True))


def test_a_service_without_a_listener_of_its_family_is_left_alone() -> None:
    assert list(replace(PLAN, listeners=LISTENERS[:1]).pairs()) == [(SERVICES[0], LISTENERS[0])]


def test_two_renewals_may_be_missed() -> None:
    assert 3 * RENEWAL < LEASE


def test_an_error_says_what_is_wrong_and_what_to_do() -> None:
    assert str(InterceptError("slug", "it is broken", "mend it")) == "it is broken; mend it"
    assert str(InterceptError("slug", "it is broken")) == "it is broken"
