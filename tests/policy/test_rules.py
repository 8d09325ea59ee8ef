"""Rules: what is allowed is read strictly, what is denied widely."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.config_rules import rule_paths
from imds_proxy.policy.caller import Caller, Identity
from imds_proxy.policy.matching import CallerMatch, Selector
from imds_proxy.policy.rules import Rule, RulePaths, hidden_by
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.profile import ALIBABA
from imds_proxy.protocol.target import canonical_target

APP = Caller(Identity(1000, unit="app.service"), user="app")
ROLE = "meta-data/ram/security-credentials/role"


def paths(*patterns: str) -> RulePaths:
    return rule_paths(patterns, ALIBABA)


def segments(path: str) -> tuple[str, ...]:
    return canonical_target(path.encode()).segments


@pytest.mark.parametrize(
    ("pattern", "path", "allows", "denies"),
    [
        (ROLE, f"/latest/{ROLE}", True, True),
        (ROLE, f"/{ROLE}", True, True),
        (ROLE, f"/2031-01-01/{ROLE}", True, True),
        (ROLE, f"/1.0/{ROLE.upper()}", True, True),
        (ROLE, f"//latest//{ROLE}/", True, True),
        (ROLE, f"/x/y/{ROLE}", False, True),
        (ROLE, f"/latest/{ROLE}x", False, False),
        (ROLE, f"/latest/{ROLE}/more", False, True),
        ("meta-data/a", "/latest/meta-data/ab", False, False),
        ("meta-data/ram/security-credentials/*", "/latest/meta-data/ram/security-credentials/", False, True),
        ("meta-data/ram/**", "/latest/meta-data/ram", True, True),
        ("meta-data/ram/**", "/latest/meta-data/all", False, True),
        ("user-data", "/latest/meta-data/all", False, False),
        ("meta-data/**", "/latest/meta-data/all", True, True),
    ],
)
def test_paths_of_a_rule(pattern: str, path: str, allows: bool, denies: bool) -> None:
    assert paths(pattern).allows(segments(path)) is allows
    assert paths(pattern).denies(segments(path)) is denies


@given(st.lists(st.sampled_from(["latest", "meta-data", "ram", "all", "x", "user-data"]), max_size=6))
def test_what_would_be_allowed_is_denied_by_the_same_patterns(parts: list[str]) -> None:
    for patterns in ((), ("meta-data/ram/**",), ("meta-data/*", "user-data")):
        if paths(*patterns).allows(tuple(parts)):
            assert paths(*patterns).denies(tuple(parts))


@pytest.mark.parametrize(
    ("mine", "theirs", "covers"),
    [
        ((), ("a",), True),
        (("a",), (), False),
        (("a/**",), ("a", "a/b", "a/b/**"), True),
        (("a",), ("a/**",), False),
        (("a/*",), ("a/b",), True),
        (("a/b",), ("a/*",), False),
    ],
)
def test_paths_cover_what_they_surely_mean(
    mine: tuple[str, ...], theirs: tuple[str, ...], covers: bool
) -> None:
    assert paths(*mine).covers(paths(*theirs)) is covers


@pytest.mark.parametrize(
    ("pattern", "touches"),
    [
        ("meta-data/**", True),
        ("meta-data/*/x", True),
        ("meta-data/ram/role", True),
        ("meta-data/instance-id", False),
        ("meta-data/instance/**", False),
        ("dynamic/**", False),
    ],
)
def test_a_rule_touches_sensitive_paths_where_one_of_its_own_is(pattern: str, touches: bool) -> None:
    assert paths(pattern).touches(SensitivePaths(["meta-data/ram/**"])) is touches
    assert paths().touches(SensitivePaths(["meta-data/ram/**"]))


def test_a_rule_means_its_callers_on_its_paths() -> None:
    rule = Rule("r", CallerMatch((Selector("user", ("app",)),)), paths("user-data"))
    assert rule.means(APP, ("latest", "user-data"))
    assert not rule.means(APP, ("latest", "vendor-data"))
    assert not rule.means(Caller(Identity(0), user="root"), ("latest", "user-data"))


def test_a_refusal_names_its_rule_and_stays_one_sentence() -> None:
    rule = Rule("no credentials", CallerMatch(), paths(), allow=False, legacy="refuse")
    assert rule.refusal.sentence == "The rule 'no credentials' of policy.rules refuses this."
    assert (rule.refusal.slug, rule.refusal.status) == ("rule", 403)
    assert "The rule 'no credentials'" in rule.legacy_refusal.sentence


def test_a_later_rule_that_can_never_decide_is_found() -> None:
    wide = Rule("wide", CallerMatch((Selector("user", ("app",)),)), paths("meta-data/**"))
    narrow = Rule(
        "narrow", CallerMatch((Selector("user", ("app",)),)), paths("meta-data/ram/**"), allow=False
    )
    other = Rule("other", CallerMatch(), paths("meta-data/ram/**"))
    assert hidden_by([wide, narrow, other]) == [(narrow, wide)]
    assert hidden_by([narrow, wide, other]) == []
