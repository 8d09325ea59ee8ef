"""Selectors: every key agrees with one of its values, and an absent fact agrees with nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.policy.caller import Caller, Identity, Pod, Program
from imds_proxy.policy.matching import FACTS, CallerMatch, Selector, glob, is_glob

JAVA = Caller(
    Identity(1000, unit="billing.service"),
    user="billing",
    program=Program(
        exe=frozenset({"/usr/lib/jvm/17/bin/java", "/usr/bin/java"}),
        sha256="ab" * 32,
        script="/opt/billing/app.jar",
        groups=frozenset({"1000", "billing", "ssl-cert"}),
        parents=frozenset({"/usr/lib/systemd/systemd"}),
    ),
)
PODDED = Caller(
    Identity(0, container="c" * 64),
    program=Program(contained=True),
    container_name="app",
    container_image="registry/app:1",
    pod=Pod("web", "front-1", "default", {"app": "front", "tier": "web"}),
)
NOBODY = Caller(Identity(None, origin="127.0.0.1"))


def match(**selectors: str | tuple[str, ...]) -> CallerMatch:
    return CallerMatch(
        tuple(Selector(fact, (one,) if isinstance(one, str) else one) for fact, one in selectors.items())
    )


@pytest.mark.parametrize(
    ("pattern", "text", "agrees"),
    [
        ("/usr/bin/java", "/usr/bin/java", True),
        ("/usr/bin/java", "/usr/bin/javac", False),
        ("/usr/*/java", "/usr/bin/java", True),
        ("/usr/*/java", "/usr/lib/jvm/java", False),
        ("/usr/**/java", "/usr/lib/jvm/java", True),
        ("/usr/bin/python3.?", "/usr/bin/python3.9", True),
        ("/usr/bin/python3.?", "/usr/bin/python3.11", False),
        ("web@*.service", "web@1.service", True),
        ("a.b", "axb", False),
        ("/opt/App", "/opt/app", False),
        ("a", "a\n", False),
    ],
)
def test_a_glob_is_for_segments_and_minds_the_case(pattern: str, text: str, agrees: bool) -> None:
    assert (glob(pattern).fullmatch(text) is not None) is agrees


@given(st.text(alphabet="abc./[]()+^$\\|{}", max_size=20))
def test_a_text_without_wildcards_means_itself_alone(text: str) -> None:
    assert not is_glob(text)
    assert glob(text).fullmatch(text)
    assert not glob(text).fullmatch(text + "a")


@pytest.mark.parametrize(
    "selectors",
    [
        {},
        {"exe": "/usr/bin/java"},
        {"exe": "/usr/lib/jvm/*/bin/java", "user": "billing", "unit": "billing.service"},
        {"exe": ("/usr/bin/node", "/usr/bin/java")},
        {"sha256": "ab" * 32},
        {"script": "/opt/billing/*.jar"},
        {"user": "1000"},
        {"uid": "1000"},
        {"uid": "900-1100"},
        {"group": "ssl-cert"},
        {"unit": "billing.*"},
        {"parent": "/usr/lib/systemd/systemd"},
    ],
)
def test_facts_that_agree_match(selectors: dict[str, Any]) -> None:
    assert match(**selectors).matches(JAVA)
    assert match(**selectors).mismatch(JAVA) is None


@pytest.mark.parametrize(
    ("selectors", "why"),
    [
        ({"exe": "/usr/bin/node"}, "exe is /usr/bin/java, /usr/lib/jvm/17/bin/java, not /usr/bin/node"),
        ({"exe": "/usr/bin/java", "user": "root"}, "user is 1000, billing, not root"),
        ({"uid": "1001-2000"}, "uid is 1000, not 1001-2000"),
        ({"group": "root"}, "group is 1000, billing, ssl-cert, not root"),
        ({"container": "*"}, "container is unknown, not *"),
        ({"pod_namespace": "*"}, "pod_namespace is unknown, not *"),
    ],
)
def test_the_first_fact_that_does_not_agree_is_named(selectors: dict[str, Any], why: str) -> None:
    assert not match(**selectors).matches(JAVA)
    assert match(**selectors).mismatch(JAVA) == why


def test_a_pod_is_matched_by_what_the_cluster_says_of_it() -> None:
    assert match(pod_namespace="web", pod_name="front-*", pod_service_account="default").matches(PODDED)
    assert match(pod_labels=("app=front", "tier=*")).matches(PODDED)
    assert not match(pod_labels=("app=front", "tier=db")).matches(PODDED)
    assert match(container_name="app", container_image="registry/app:*").matches(PODDED)


@pytest.mark.parametrize("fact", FACTS)
def test_an_unknown_caller_matches_no_selector(fact: str) -> None:
    pattern = "0-4294967294" if fact == "uid" else "**"
    assert not match(**{fact: pattern}).matches(NOBODY)


@pytest.mark.parametrize(
    ("mine", "theirs", "covers"),
    [
        ({}, {"user": "x"}, True),
        ({"user": "x"}, {}, False),
        ({"user": "x"}, {"user": "x", "unit": "y"}, True),
        ({"unit": "web@*.service"}, {"unit": "web@1.service"}, True),
        ({"unit": "web@1.service"}, {"unit": "web@*.service"}, False),
        ({"uid": "1-10"}, {"uid": "3-4"}, True),
        ({"uid": "3-4"}, {"uid": "1-10"}, False),
        ({"user": ("x", "y")}, {"user": "y"}, True),
        ({"user": "x"}, {"user": ("x", "y")}, False),
        ({"pod_labels": "a=b"}, {"pod_labels": ("a=b", "c=d")}, False),
    ],
)
def test_a_match_covers_what_surely_matches_it_too(
    mine: dict[str, Any], theirs: dict[str, Any], covers: bool
) -> None:
    assert match(**mine).covers(match(**theirs)) is covers


def test_the_boundary_is_user_unit_or_place_and_not_a_program() -> None:
    assert not match(exe="/a", script="b", sha256="c", parent="/d").names_boundary
    assert all(match(**{fact: "x"}).names_boundary for fact in ("user", "uid", "group", "unit", "container"))
    assert match(pod_namespace="x").names_place
    assert not match(user="x").names_place


def test_callers_whose_facts_are_alike_have_one_profile() -> None:
    assert dataclasses.replace(JAVA, start_ticks=5).profile == JAVA.profile
    assert dataclasses.replace(JAVA, user="x").profile != JAVA.profile
    assert dataclasses.replace(PODDED, pod=None).profile != PODDED.profile
    assert hash(PODDED.profile)
