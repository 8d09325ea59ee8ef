"""Which times were watched, whatever the clocks did."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.ledger.coverage import Clock, Gap, Span, gaps

UP = Span("boot-1", 0.0, 1000.0, 0.0, 1000.0, "upgrade", "enforce", "redirect")


def span(begin: float, end: float, interception: str = "redirect") -> Span:
    return replace(UP, begin=begin, end=end, begin_boot=begin, end_boot=end, interception=interception)


def test_a_window_that_was_watched_whole_has_no_gap() -> None:
    assert gaps([UP], [], 0, 1000) == []
    assert gaps([span(0, 400), span(400, 1000, "address")], [], 100, 900) == []
    assert gaps([span(0, 1000, "observe")], [], 0, 1000) == []


def test_what_was_not_watched_is_named_with_its_reason() -> None:
    spans = [span(100, 300), span(300, 400, "down"), span(600, 700), span(700, 800, "none")]
    assert gaps(spans, [], 0, 1000) == [
        Gap(0, 100, "not-running"),
        Gap(300, 400, "redirect-down"),
        Gap(400, 600, "not-running"),
        Gap(700, 800, "not-in-the-way"),
        Gap(800, 1000, "not-running"),
    ]


def test_a_gap_is_cut_to_the_window() -> None:
    assert gaps(
        [span(0, 500, "down")], [Gap(0, 50, "counts-lost"), Gap(450, 600, "counts-lost")], 100, 500
    ) == [
        Gap(100, 500, "redirect-down"),
        Gap(450, 500, "counts-lost"),
    ]


def test_a_restart_is_no_gap_many_are() -> None:
    assert gaps([span(0, 500), span(509, 1000)], [], 0, 1000) == []
    flapping = [span(start, start + 91) for start in range(0, 10_000, 100)]
    assert len(gaps(flapping, [], 0, 10_000)) == 100
    assert gaps([span(0, 500), span(511, 1000)], [], 0, 1000) == [Gap(500, 511, "not-running")]


def test_overlapping_spans_hide_no_gap_and_make_none() -> None:
    assert gaps([span(0, 600), span(100, 200), span(500, 1000)], [], 0, 1000) == []


def test_a_clock_that_was_behind_is_corrected_by_the_boots_own() -> None:
    wrong = Span("boot-1", 100.0, 200.0, 50.0, 150.0, "upgrade", "enforce", "redirect")
    right = Span("boot-1", 10_000.0, 10_500.0, 150.0, 650.0, "upgrade", "enforce", "redirect")
    clock = Clock([wrong, right])
    assert (clock.span(wrong).begin, clock.span(wrong).end) == (9900.0, 10_000.0)
    assert clock.time(150.0) == 9950.0
    assert clock.time(10_400.0) == 10_400.0
    assert gaps([clock.span(wrong), clock.span(right)], [], 9900, 10_500) == []


def test_what_was_noted_while_two_spans_claim_the_time_is_as_late_as_it_can_be() -> None:
    ahead = Span("boot-1", 5000.0, 6000.0, 0.0, 1000.0, "upgrade", "enforce", "redirect")
    behind = Span("boot-1", 1000.0, 9000.0, 1000.0, 9000.0, "upgrade", "enforce", "redirect")
    clock = Clock([ahead, behind])
    assert clock.span(ahead).end == 1000.0
    assert clock.time(5500.0) == 5500.0  # it may have been either


def test_the_machines_own_clock_outweighs_the_last_span() -> None:
    old = Span("boot-1", 100.0, 200.0, 50.0, 150.0, "upgrade", "enforce", "redirect")
    assert Clock([old], ("boot-1", 10_050.0, 250.0)).span(old).end == 9950.0
    assert Clock([old], ("boot-2", 10_050.0, 250.0)).span(old).end == 200.0


times = st.floats(0, 10_000)


@given(
    st.lists(st.tuples(times, times, st.sampled_from(["redirect", "down", "none"])), max_size=8), times, times
)
def test_no_moment_outside_every_watching_span_is_called_watched(
    made: list[tuple[float, float, str]], one: float, other: float
) -> None:
    begin, end = min(one, other), max(one, other)
    spans = [span(min(a, b), max(a, b), how) for a, b, how in made]
    found = gaps(spans, [], begin, end)
    assert all(begin <= gap.begin <= gap.end <= end for gap in found)
    for number in range(50):
        at = begin + (end - begin) * (number + 0.5) / 50
        seen = any(one.begin <= at <= one.end and one.interception == "redirect" for one in spans)
        near = [abs(at - edge) for one in spans for edge in (one.begin, one.end)] + [at - begin, end - at]
        if not seen and min(near) > 11:  # a restart's length
            assert any(gap.begin <= at <= gap.end for gap in found)
