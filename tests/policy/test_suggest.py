"""Suggestions: just what was seen, numbers generalised, nothing sensitive generalised."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.policy.suggest import Observation, Seen, minimal, suggest
from imds_proxy.protocol.items import PathPattern

SENSITIVE = SensitivePaths(["meta-data/ram/**"])
CURL = Seen("/usr/bin/curl", None, "app", 1000, "app.service", None)
MACS = ("meta-data", "network", "interfaces", "macs")
SEGMENTS = st.sampled_from(["meta-data", "ram", "12", "00:16:3e:00:00:01", "x", "a b", "role*", "7f"])


def seen(*items: tuple[str, ...], **sessions: int) -> Observation:
    return Observation(sessions, set(items))


def test_numbers_and_mac_addresses_become_one_pattern() -> None:
    items = {(*MACS, f"00:16:3e:00:00:0{n}", "vpc-id") for n in range(5)} | {("meta-data", "disks", "12")}
    assert minimal(items, SENSITIVE) == (
        "meta-data/disks/*",
        "meta-data/network/interfaces/macs/*/vpc-id",
    )


def test_a_sensitive_item_is_named_as_it_is() -> None:
    items = {("meta-data", "ram", "security-credentials", "42")}
    assert minimal(items, SENSITIVE) == ("meta-data/ram/security-credentials/42",)


def test_the_listing_of_versions_needs_no_pattern() -> None:
    assert minimal({()}, SENSITIVE) == ()


@given(st.sets(st.lists(SEGMENTS, min_size=1, max_size=4).map(tuple), max_size=12))
def test_the_patterns_match_everything_that_was_seen(items: set[tuple[str, ...]]) -> None:
    parsed = [PathPattern.parse(text) for text in minimal(items, SENSITIVE)]
    assert all(any(one.matches(item) for one in parsed) for item in items)
    assert not any(a is not b and a.covers(b) for a in parsed for b in parsed)


def test_one_rule_for_each_caller_the_most_exact_first() -> None:
    script = Seen("/usr/bin/python3", "/opt/a.py", "app", 1000, "app.service", None)
    bare = Seen(None, None, "app", 1000, None, None)
    found = suggest([(bare, seen(("x",))), (CURL, seen(("x",), legacy=2)), (script, seen(("y",)))], SENSITIVE)
    assert [one.name for one in found] == [
        "python3 a.py of app in app.service",
        "curl of app in app.service",
        "unknown program of app",
    ]
    assert found[1].caller == (("exe", "/usr/bin/curl"), ("user", "app"), ("unit", "app.service"))
    assert found[1].sessions == (("legacy", 2),)


def test_who_cannot_be_told_from_others_gets_no_rule() -> None:
    assert suggest([(Seen(None, None, None, None, None, None), seen(("x",)))], SENSITIVE) == []


def test_names_are_unique_and_a_deleted_program_is_not_named() -> None:
    one = Seen("/a/x (deleted)", None, None, 5, None, None)
    two = Seen("/b/x", None, None, 5, None, None)
    found = suggest([(one, seen(("x",))), (two, seen(("x",)))], SENSITIVE)
    assert len({rule.name for rule in found}) == 2
    assert {rule.caller for rule in found} == {(("uid", "5"),), (("exe", "/b/x"), ("uid", "5"))}
