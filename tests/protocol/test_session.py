"""The four kinds of session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.protocol.session import FALLBACK_WINDOW, Session, session_kind


@pytest.mark.parametrize(
    ("is_put", "has_token", "failed_at", "kind"),
    [
        (True, False, None, Session.TOKEN),
        (True, True, 99.0, Session.TOKEN),
        (False, True, None, Session.HARDENED),
        (False, True, 99.0, Session.HARDENED),
        (False, False, None, Session.LEGACY),
        (False, False, 99.0, Session.FALLBACK),
        (False, False, 100.0, Session.FALLBACK),
        (False, False, 100.0 - FALLBACK_WINDOW, Session.FALLBACK),
        (False, False, 99.9 - FALLBACK_WINDOW, Session.LEGACY),
    ],
)
def test_the_table(is_put: bool, has_token: bool, failed_at: float | None, kind: Session) -> None:
    assert session_kind(is_put, has_token, failed_at, now=100.0) is kind


def test_the_window_covers_the_longest_patience_of_an_sdk() -> None:
    assert 10.0 < FALLBACK_WINDOW < 15.0


@given(st.floats(allow_nan=False), st.floats(allow_nan=False, allow_infinity=False))
def test_a_plain_get_is_one_or_the_other_whatever_the_clock_says(failed_at: float, now: float) -> None:
    kind = session_kind(False, False, failed_at, now)
    assert kind in (Session.LEGACY, Session.FALLBACK)
    if failed_at > now:
        assert kind is Session.LEGACY
