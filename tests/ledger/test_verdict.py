"""May we switch: a table of histories, and what is right for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from imds_proxy.ledger.coverage import Gap, Span
from imds_proxy.ledger.verdict import DAY, Answer, CallerHistory, History, Program, assess, version_of

NOW = 1_790_000_000.0
BOOT = 100 * DAY  # CLOCK_BOOTTIME now
BEGIN = NOW - 14 * DAY
CLOUD_INIT = Program("cloud-init", "24.1.3", "/usr/bin/cloud-init")
READY, NOT_READY, UNKNOWN = "READY", "NOT READY", "UNKNOWN"


def span(from_day: float, to_day: float = 0.0, **more: str) -> Span:
    """A time that was watched; in days before now."""
    begin, end = -from_day * DAY, -to_day * DAY
    span = Span("boot", NOW + begin, NOW + end, BOOT + begin, BOOT + end, "upgrade", "enforce", "redirect")
    return replace(span, **more)  # type: ignore[arg-type]


def caller(session: str, days_ago: float, name: str = "/usr/bin/curl", **more: str) -> CallerHistory:
    return CallerHistory(name, {session: NOW - days_ago * DAY}, **more)


def wrong_clock() -> History:
    """The machine booted ten days ago believing it was 1970; a minute later its clock was set."""
    minute = 60.0
    booted = Span(
        "boot", 0.0, minute, BOOT - 10 * DAY, BOOT - 10 * DAY + minute, "upgrade", "enforce", "redirect"
    )
    before = replace(span(30, 10), boot="earlier")
    return History(
        [before, booted, span(10 - minute / DAY)], callers=[CallerHistory("/boot.sh", {"legacy": 30.0})]
    )


def clock_set_back() -> History:
    """For a while the clock was a year ahead; what was seen then is three days old."""
    year, begin, end = 365 * DAY, 4 * DAY, 2 * DAY
    ahead = Span(
        "boot",
        NOW - begin + year,
        NOW - end + year,
        BOOT - begin,
        BOOT - end,
        "upgrade",
        "enforce",
        "redirect",
    )
    seen = CallerHistory("/x", {"hardened": NOW - 3 * DAY + year})
    return History([span(20, 4), ahead, span(2)], callers=[seen])


@dataclass(frozen=True)
class Case:
    """A history, and the verdicts: with the proxy in place, without it; kinds and subjects of the reasons."""

    history: History
    required: str
    removed: str
    reasons: frozenset[tuple[str, str]] = frozenset()


def case(required: str, removed: str, *reasons: tuple[str, str], **history: object) -> Case:
    facts = {"spans": [span(20)], "programs": [CLOUD_INIT], **history}
    return Case(History(**facts), required, removed, frozenset(reasons))  # type: ignore[arg-type]


CASES: dict[str, Case] = {
    "nothing was ever watched": case(UNKNOWN, UNKNOWN, ("gap", "not-running"), spans=[]),
    "watched, and nobody called": case(READY, READY),
    "only hardened callers": case(READY, READY, callers=[caller("hardened", 1), caller("token", 1)]),
    "a legacy caller yesterday": case(
        READY,
        NOT_READY,
        ("legacy", "/usr/bin/curl"),
        callers=[caller("legacy", 1), caller("hardened", 1, "b")],
    ),
    "a legacy caller just inside the window": case(
        READY, NOT_READY, ("legacy", "/usr/bin/curl"), callers=[caller("legacy", 14 - 1e-5)]
    ),
    "a legacy caller at the window's very edge": case(
        READY, NOT_READY, ("legacy", "/usr/bin/curl"), callers=[caller("legacy", 14)]
    ),
    "a legacy caller just outside the window": case(READY, READY, callers=[caller("legacy", 14 + 1e-5)]),
    "a fallback only": case(
        READY, NOT_READY, ("fallback", "/usr/bin/curl"), callers=[caller("fallback", 2, cause="deadline")]
    ),
    "installed five days ago": case(UNKNOWN, UNKNOWN, ("gap", "not-running"), spans=[span(5)]),
    "installed five days ago, and a legacy caller": case(
        UNKNOWN,
        NOT_READY,
        ("gap", "not-running"),
        ("legacy", "/usr/bin/curl"),
        spans=[span(5)],
        callers=[caller("legacy", 1)],
    ),
    "not running for an hour": case(
        UNKNOWN, UNKNOWN, ("gap", "not-running"), spans=[span(20, 6), span(6 - 1 / 24)]
    ),
    "not running for an hour, before the window": case(READY, READY, spans=[span(30, 16), span(16 - 1 / 24)]),
    "restarted in a few seconds, twice": case(
        READY, READY, spans=[span(20, 6), span(6 - 4 / DAY, 3), span(3 - 9 / DAY)]
    ),
    "a crash loop": case(
        UNKNOWN,
        UNKNOWN,
        ("gap", "not-running"),
        spans=[span(20, 1), *[span(1 - n / 1000, 1 - (n + 0.9) / 1000) for n in range(1000)]],
    ),
    "rebooted, and the new boot watches": case(
        READY, READY, spans=[replace(span(20, 7), boot="earlier"), span(7 - 8 / DAY)]
    ),
    "stopped yesterday and still is": case(UNKNOWN, UNKNOWN, ("gap", "not-running"), spans=[span(20, 1)]),
    "the redirect was down for ten minutes": case(
        UNKNOWN,
        UNKNOWN,
        ("gap", "redirect-down"),
        spans=[span(20, 3), span(3, 3 - 600 / DAY, interception="down"), span(3 - 600 / DAY)],
    ),
    "never in the way": case(
        UNKNOWN, UNKNOWN, ("gap", "not-in-the-way"), spans=[span(20, interception="none")]
    ),
    "watched passively only": case(
        NOT_READY,
        READY,
        ("mode", "mode"),
        ("enforcement", "policy.enforcement"),
        spans=[span(20, interception="observe", mode="passthrough", enforcement="audit")],
    ),
    "a connection that bypassed the proxy": case(
        UNKNOWN, UNKNOWN, ("bypass", "/opt/agent"), callers=[caller("bypass", 2, "/opt/agent")]
    ),
    "a bypass before the window": case(READY, READY, callers=[caller("bypass", 20)]),
    "counts were lost on a full disk": case(
        UNKNOWN,
        UNKNOWN,
        ("gap", "counts-lost"),
        losses=[Gap(NOW - 2 * DAY, NOW - 2 * DAY + 60, "counts-lost")],
    ),
    "counts were lost before the window": case(
        READY, READY, losses=[Gap(NOW - 20 * DAY, NOW - 19 * DAY, "counts-lost")]
    ),
    "the policy is only audited": case(
        NOT_READY, READY, ("enforcement", "policy.enforcement"), spans=[span(20, enforcement="audit")]
    ),
    "the policy was audited until yesterday": case(
        READY, READY, spans=[span(20, 1, enforcement="audit"), span(1)]
    ),
    "an old cloud-init": case(
        NOT_READY, READY, ("program", "cloud-init"), programs=[replace(CLOUD_INIT, version="22.4.2")]
    ),
    "a cloud-init that does not say its version": case(
        UNKNOWN, READY, ("program", "cloud-init"), programs=[replace(CLOUD_INIT, version=None)]
    ),
    "no cloud-init on this machine": case(READY, READY, programs=[Program("cloud-init", None, None)]),
    "nobody looked for cloud-init": case(UNKNOWN, READY, ("program", "cloud-init"), programs=[]),
    "an agent that is too old": case(
        NOT_READY,
        READY,
        ("program", "Cloud Assistant"),
        programs=[CLOUD_INIT, Program("Cloud Assistant", "1.0", "/usr/sbin/a", "upgrade it to 2.2.3.700")],
    ),
    "the clock was in 1970 when a legacy caller came": Case(
        replace(wrong_clock(), programs=[CLOUD_INIT]), READY, NOT_READY, frozenset({("legacy", "/boot.sh")})
    ),
    "the clock was a year ahead for a while": Case(
        replace(clock_set_back(), programs=[CLOUD_INIT]), READY, READY
    ),
    "the clock stepped forward by ten minutes": case(
        READY,
        READY,
        spans=[
            replace(span(20, 5), begin=NOW - 20 * DAY - 600, end=NOW - 5 * DAY - 600),
            span(5),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_is_right(name: str) -> None:
    """Must show: gaps, restarts, clock steps, the window's edge, fallbacks, bypassing connections, ..."""
    expected = CASES[name]
    found = assess(expected.history, NOW, 14)
    assert found.required.verdict.value == expected.required
    assert found.removed.verdict.value == expected.removed
    reasons = (*found.required.reasons, *found.removed.reasons)
    assert {(reason.kind, reason.subject) for reason in reasons} == expected.reasons


def test_the_table_has_every_kind_of_history_and_every_verdict() -> None:
    assert len(CASES) >= 20
    for pick in (lambda case: case.required, lambda case: case.removed):
        chosen: Callable[[Case], str] = pick
        assert {chosen(case) for case in CASES.values()} == {READY, NOT_READY, UNKNOWN}


def test_what_is_certain_outweighs_what_is_not_known() -> None:
    found = assess(replace(CASES["installed five days ago, and a legacy caller"].history), NOW, 14)
    assert [reason.blocks for reason in found.removed.reasons] == [True, False]


def test_a_shorter_window_asks_for_less() -> None:
    history = CASES["installed five days ago"].history
    assert assess(history, NOW, 4).removed == Answer()


def test_the_numbers_of_a_version_are_found() -> None:
    assert version_of("23.2.2-0ubuntu0~20.04.1") == (23, 2, 2)
    assert version_of("v24.1") == (24, 1)
    assert version_of("unknown") is None
