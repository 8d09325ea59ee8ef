"""Bars over time, and the words for them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.ledger.chart import KINDS, bars_of, svg_of

HOUR, DAY = 3600, 86400
NOON = 1_790_000_000 - 1_790_000_000 % DAY + 12 * HOUR


def test_hours_while_they_fit_then_days_and_none_is_left_out() -> None:
    few = bars_of([(NOON, "legacy", "allowed", 3), (NOON + 4 * HOUR, "hardened", "refused", 2)])
    assert [bar.counts for bar in few] == [(3, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 2)]
    many = bars_of([(NOON, "legacy", "allowed", 3), (NOON + 10 * DAY, "fallback", "allowed", 1)])
    assert len(many) == 11
    assert all(bar.begin % DAY == 0 for bar in many)


def test_token_calls_and_bypasses_are_no_bars() -> None:
    assert bars_of([(NOON, "token", "allowed", 3), (NOON, "bypass", "allowed", 3)]) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.sampled_from(KINDS), st.just("allowed"), st.integers(1, 10**9)),
        min_size=1,
        max_size=30,
    )
)
def test_every_picture_is_whole_and_within_its_frame(rows: list[tuple[int, str, str, int]]) -> None:
    bars = bars_of([(NOON + hour * HOUR, *rest) for hour, *rest in rows])  # type: ignore[misc]
    assert 1 <= len(bars) <= 120
    picture = ElementTree.fromstring(svg_of(bars))
    for one in picture.iter("rect"):
        assert float(one.attrib["x"]) + float(one.attrib["width"]) <= 720.01
        assert float(one.attrib["y"]) >= -3
        assert float(one.attrib["height"]) >= 1
    assert picture.find("title") is not None
    assert "legacy" in (picture.findtext("desc") or "")
