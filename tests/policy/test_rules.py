"""Rules: what is allowed is read strictly, what is denied widely."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.config_rules import rule_paths
from imds_proxy.policy.caller import Caller, Identity, Pod, Program
from imds_proxy.policy.matching import CallerMatch, Selector
from imds_proxy.policy.rules import Rule, RuleIndex, RulePaths, hidden_by
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


# Few words, so that rules hide, meet and miss each other often.
GLOBS = st.sampled_from(["a", "ab", "abc", "a*", "*b", "*", "a?c", "**", "/a", "/a/*", "/**/b", "[a"])
UIDS = st.sampled_from(["1", "01", "7", "10", "0-7", "7-10", "8-11", "1000-1999", "1500-1600", "4294967294"])
LABELS = st.sampled_from(["app=a", "app=*", "tier=b", "*=b"])
PATTERNS = st.sampled_from(["a", "a/b", "a/*", "a/b/c", "*/b", "a/**", "a/b/**", "b", "meta-data/**", "A/B"])


def selector(fact: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[Selector]:
    return st.builds(Selector, st.just(fact), st.lists(values, min_size=1, max_size=3).map(tuple))


SELECTORS = st.one_of(
    *(selector(fact, GLOBS) for fact in ("exe", "user", "unit", "group")),
    selector("uid", UIDS),
    selector("pod_labels", LABELS),
)
RULES = st.lists(
    st.builds(
        Rule,
        st.just("r"),
        st.lists(SELECTORS, max_size=3, unique_by=lambda one: one.fact).map(lambda s: CallerMatch(tuple(s))),
        st.lists(PATTERNS, max_size=3).map(lambda texts: paths(*texts)),
        st.booleans(),
    ),
    max_size=40,
).map(tuple)
VALUES = st.sampled_from(["a", "ab", "abc", "b", "/a", "/a/b", "[a", "xb"])
CALLERS = st.builds(
    lambda uid, unit, user, exe, groups, labels: Caller(
        Identity(uid, unit=unit),
        user=user,
        program=Program(exe=exe, groups=groups),
        pod=Pod("n", "p", "s", labels) if labels is not None else None,
    ),
    st.sampled_from([None, 0, 1, 7, 8, 10, 1550, 2**32 - 2]),
    st.none() | VALUES,
    st.none() | VALUES,
    st.frozensets(VALUES, max_size=2),
    st.frozensets(VALUES, max_size=2),
    st.none() | st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"])),
)
SEGMENTS = st.lists(st.sampled_from(["a", "b", "c", "latest", "meta-data", "all"]), max_size=5).map(tuple)


@given(RULES)
def test_hidden_rules_are_those_that_comparing_each_pair_would_find(rules: tuple[Rule, ...]) -> None:
    pairs = [
        (number, at)
        for number, rule in enumerate(rules)
        for at in range(number)
        if rules[at].caller.covers(rule.caller) and rules[at].paths.covers(rule.paths)
    ]
    first = dict(reversed(pairs))
    expected = [(id(rules[number]), id(rules[first[number]])) for number in sorted(first)]
    assert [(id(rule), id(earlier)) for rule, earlier in hidden_by(rules)] == expected


# For everybody, and too many to be asked one by one.
OTHERS = tuple(Rule(f"other {n}", CallerMatch(), paths(f"other/{n}")) for n in range(20))


@given(st.sampled_from([(), OTHERS]), RULES, CALLERS, st.lists(SEGMENTS, min_size=1, max_size=8))
def test_the_index_decides_as_asking_each_rule_would(
    others: tuple[Rule, ...], own: tuple[Rule, ...], caller: Caller, asked: list[tuple[str, ...]]
) -> None:
    rules = (*others, *own)
    index = RuleIndex(rules)
    groups = index.of(caller)
    for path in asked:
        expected = next((rule for rule in rules if rule.means(caller, path)), None)
        assert index.first(groups, path) is expected


def test_ten_thousand_rules_are_not_asked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[CallerMatch] = []
    rules = tuple(
        Rule(
            f"r{n}", CallerMatch((Selector("user", ("app",)), Selector("unit", (f"*-{n}.service",)))), paths()
        )
        for n in range(10_000)
    )
    index = RuleIndex(rules)
    really = CallerMatch.matches

    def matches(one: CallerMatch, who: Caller) -> bool:
        asked.append(one)
        return really(one, who)

    monkeypatch.setattr(CallerMatch, "matches", matches)
    caller = Caller(Identity(1000, unit="shop-77.service"), user="app")
    assert index.first(index.of(caller), ("latest", "user-data")) is rules[77]
    assert len(asked) == 1
    assert hidden_by(rules) == []
