"""Patterns and the classes of items (ATTACKS 5-7, 9, 10)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.protocol.items import ItemClassifier, PathPattern, PatternsAnywhere
from imds_proxy.protocol.profile import ALIBABA, ItemClass
from imds_proxy.protocol.target import canonical_target

CLASSIFIER = ItemClassifier(ALIBABA)


def kind(path: str) -> ItemClass:
    return CLASSIFIER.classify(canonical_target(path.encode()))


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/bc", False),
        ("a/b", "a/b/c", False),
        ("a/b", "a", False),
        ("/a/b/", "a/b", True),
        ("A/B", "a/b", True),
        ("a/*", "a/x", True),
        ("a/*", "a", False),
        ("a/*", "a/x/y", False),
        ("a/*/c", "a/anything/c", True),
        ("a/**", "a", True),
        ("a/**", "a/b/c", True),
        ("a/**", "ab", False),
        ("*", "x", True),
    ],
)
def test_a_pattern_matches_whole_segments(pattern: str, path: str, matches: bool) -> None:
    assert PathPattern.parse(pattern).matches(path.split("/")) is matches


PATTERNS = st.sampled_from(["a", "a/b", "a/*", "a/**", "*", "*/b", "*/b/**", "b/a/c", "c/**"])


@given(st.lists(PATTERNS, max_size=6), st.lists(st.sampled_from("abcd"), max_size=8))
def test_patterns_are_found_anywhere_as_asking_each_at_each_segment_would(
    texts: list[str], segments: list[str]
) -> None:
    patterns = [PathPattern.parse(text) for text in texts]
    expected = next(
        (
            number
            for offset in range(len(segments))
            for number, pattern in enumerate(patterns)
            if pattern.matches(segments[offset:])
        ),
        None,
    )
    assert PatternsAnywhere(patterns).find(segments) == expected


def test_a_path_of_a_thousand_segments_is_not_compared_with_each_pattern_at_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[PathPattern] = []
    really = PathPattern.matches

    def matches(one: PathPattern, segments: Sequence[str]) -> bool:
        asked.append(one)
        return really(one, segments)

    monkeypatch.setattr(PathPattern, "matches", matches)
    assert kind("/a" * 999 + "/meta-data/ram/security-credentials/role") is ItemClass.CREDENTIALS
    assert len(asked) < 10


@pytest.mark.parametrize("text", ["", "/", "**", "a//b", "a/**/b", "**/a"])
def test_a_malformed_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        PathPattern.parse(text)


@pytest.mark.parametrize(
    ("below", "item"),
    [
        ("meta-data/instance-id", ItemClass.STATIC),
        ("meta-data/region-id", ItemClass.STATIC),
        ("meta-data/network/interfaces/macs/00:16:3e:00:00:01/network-interface-id", ItemClass.STATIC),
        ("meta-data/hostname", ItemClass.SLOW),
        ("meta-data/instance/instance-type", ItemClass.SLOW),
        ("meta-data/instance/spot/termination-time", ItemClass.VOLATILE),
        ("maintenance/active-system-events", ItemClass.VOLATILE),
        ("meta-data/network/interfaces/macs/00:16:3e:00:00:01/private-ipv4s", ItemClass.VOLATILE),
        ("meta-data/ram/security-credentials/role", ItemClass.CREDENTIALS),
        ("meta-data/Ram/Security-Credentials/Role", ItemClass.CREDENTIALS),
        ("meta-data/ram/security-credentials/", ItemClass.LISTING),
        ("meta-data/ram/security-credentials", ItemClass.LISTING),
        ("meta-data/", ItemClass.LISTING),
        ("meta-data/network/interfaces/", ItemClass.LISTING),
        ("meta-data/all", ItemClass.AGGREGATE),
        ("user-data", ItemClass.USER_DATA),
        ("vendor-data", ItemClass.USER_DATA),
        ("dynamic/instance-identity/document", ItemClass.IDENTITY),
        ("dynamic/instance-identity/signature", ItemClass.IDENTITY),
        ("dynamic/instance-identity/pkcs7", ItemClass.NEVER),
        ("global-config/aliyun-assist", ItemClass.NEVER),
        ("nonsense", ItemClass.UNKNOWN),
    ],
)
@pytest.mark.parametrize("version", ["latest", "2016-01-01", "1.0", "2031-12-31", "LATEST"])
def test_an_item_has_one_class_under_every_version(version: str, below: str, item: ItemClass) -> None:
    assert kind(f"/{version}/{below}") is item


ROWS = tuple((PathPattern.parse(text), item) for text, item in ALIBABA.item_classes)


@st.composite
def paths_like_rows(draw: st.DrawFn) -> list[str]:
    """A path that a row of the table matches, with something changed or added."""
    segments = list(draw(st.sampled_from(ROWS))[0].segments)
    segments += draw(st.lists(st.sampled_from(["x", "eth0", "ram"]), max_size=2))
    for at in draw(st.lists(st.integers(0, len(segments) - 1), max_size=1)):
        segments[at] = draw(st.sampled_from(["x", "mac"]))
    return [segment if segment != "*" else "y" for segment in segments]


@given(paths_like_rows())
def test_the_class_is_that_of_the_first_row_that_matches(segments: list[str]) -> None:
    below = tuple(segments)
    first = next((item for pattern, item in ROWS if pattern.matches(below)), ItemClass.UNKNOWN)
    found = kind("/latest/" + "/".join(segments))
    assert found is first or found in (ItemClass.CREDENTIALS, ItemClass.NEVER)  # these at any depth


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("/", ItemClass.LISTING),
        ("/latest", ItemClass.LISTING),
        ("/latest/", ItemClass.LISTING),
        ("/user-data", ItemClass.USER_DATA),
        ("/meta-data/ram/security-credentials/role", ItemClass.CREDENTIALS),
        ("/latest/api/token", ItemClass.TOKEN),
        ("/latest/user-data/", ItemClass.USER_DATA),
        ("/latest/meta-data/hostname/", ItemClass.LISTING),
        ("/latest/meta-data/ram/security-credentials/role/", ItemClass.CREDENTIALS),
    ],
)
def test_without_a_version_or_with_a_slash_an_item_keeps_its_class(path: str, item: ItemClass) -> None:
    assert kind(path) is item


def test_only_identity_documents_take_a_query() -> None:
    def takes(path: str) -> bool:
        return CLASSIFIER.takes_query(canonical_target(path.encode()))

    assert takes("/latest/dynamic/instance-identity/pkcs7")
    assert takes("/2016-01-01/dynamic/instance-identity/document")
    assert not takes("/latest/dynamic/instance-identity/signature")
    assert not takes("/latest/meta-data/hostname")


@given(st.lists(st.sampled_from(["latest", "meta-data", "ram", "user-data", "x"]), max_size=5))
def test_every_path_has_a_class(segments: list[str]) -> None:
    assert isinstance(kind("/" + "/".join(segments)), ItemClass)


@pytest.mark.parametrize(
    ("path", "item"),
    [
        # clouddetect asks for a path with its prefix twice: a lenient service might answer it.
        ("/latest/meta-data/latest/meta-data/ram/security-credentials/role", ItemClass.CREDENTIALS),
        ("/latest/latest/meta-data/Ram/security-credentials/role", ItemClass.CREDENTIALS),
        ("/latest/meta-data/x/global-config/secret", ItemClass.NEVER),
        ("/latest/x/dynamic/instance-identity/pkcs7", ItemClass.NEVER),
        ("/latest/meta-data/tags/instance/user-data", ItemClass.VOLATILE),  # a tag of that name
    ],
)
def test_credentials_and_nonces_keep_their_class_at_any_depth(path: str, item: ItemClass) -> None:
    assert kind(path) is item
