from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.clients.versions import Version


def version(text: str) -> Version:
    parsed = Version.parse(text)
    assert parsed is not None
    return parsed


ASCENDING = [
    ["0.3.2", "0.3.5", "0.3.6", "0.3.10", "1.0.0", "1.0.12"],
    ["v0.0.0-20230411021113-0123456789ab", "v0.0.1", "v1.63.49", "v1.63.107"],
    ["22.4.2-1+deb12u4", "23.1~1rc1", "23.1", "23.1.1", "23.2.2-0ubuntu0~20.04.1"],
    ["1.33.2", "v1.33.3-884df97-aliyun", "1.37.1"],
    ["2.0b1", "2.0", "2.0.1"],
]


@pytest.mark.parametrize("row", ASCENDING, ids=lambda row: row[0])
def test_releases_are_in_the_order_in_which_they_came(row: list[str]) -> None:
    assert all(version(one) < version(other) for one, other in pairwise(row))


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1.0.0"), ("v1.2", "1.2"), ("1.2-1ubuntu1", "1.2"), ("2:1.19", "1.19")]
)
def test_what_is_the_same_release_is_equal(one: str, other: str) -> None:
    assert version(one) == version(other)
    assert hash(version(one)) == hash(version(other))


@pytest.mark.parametrize("before", ["1.4.0-rc.1", "1.4.0b2", "1.4.0~rc1", "1.4.0.dev3", "1.4.0-SNAPSHOT"])
def test_a_pre_release_comes_before_its_release(before: str) -> None:
    assert version(before) < version("1.4.0")


@pytest.mark.parametrize("after", ["1.4.0-1", "1.4.0.post1", "1.4.0+local", "1.4.0-aliyun"])
def test_a_build_of_a_release_is_that_release(after: str) -> None:
    assert version(after) == version("1.4.0")


@pytest.mark.parametrize("text", ["", "latest", "(devel)", "1.0 or so", "1.0\n", "9" * 65, "1.0;rm -rf"])
def test_what_is_no_version_is_none(text: str) -> None:
    assert Version.parse(text) is None


@given(st.text(max_size=80))
def test_any_text_is_a_version_or_none_and_compares_with_itself(text: str) -> None:
    parsed = Version.parse(text)
    assert parsed is None or (parsed == parsed and not parsed < parsed and str(parsed) == text)
