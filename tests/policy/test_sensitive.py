"""Sensitive paths (ATTACKS 5-7, 9, 10): at any offset, whole segments, with all that lies below."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.config import Config
from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.target import canonical_target

DEFAULT = SensitivePaths(Config().policy.sensitive)


def sensitive(path: str) -> bool:
    return DEFAULT.match(canonical_target(path.encode()).segments) is not None


@pytest.mark.parametrize(
    "version", ["/latest", "/2016-01-01", "/1.0", "/2031-12-31", "/LATEST", "/a/b/c", ""]
)
@pytest.mark.parametrize(
    "item",
    [
        "/meta-data/ram/security-credentials/role",
        "/meta-data/ram/security-credentials/",
        "/meta-data/ram/security-credentials",
        "/meta-data/Ram/Security-Credentials/role",
        "//meta-data//ram/security-credentials/role",
        "/meta-data/r%61m/security-credentials/role",
        "/meta-data/ram/security-credentials/role/",
        "/meta-data/ram/security-credentials/role/below",
        "/user-data",
        "/User-Data",
        "/user-data/",
        "/vendor-data",
        "/meta-data/all",
        "/meta-data/all/",
        "/dynamic/instance-identity/document",
        "/dynamic/instance-identity/pkcs7",
        "/dynamic/instance-identity/signature",
        "/global-config/aliyun-assist",
    ],
)
def test_a_secret_is_sensitive_under_every_name_it_has(version: str, item: str) -> None:
    assert sensitive(version + item)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/latest/",
        "/latest/meta-data/",
        "/latest/meta-data/instance-id",
        "/latest/meta-data/ram-like",
        "/latest/user-database",
        "/latest/my-user-data",
        "/latest/meta-data/allowed",
    ],
)
def test_what_only_begins_alike_is_not(path: str) -> None:
    assert not sensitive(path)


def test_the_pattern_that_matched_is_named() -> None:
    paths = SensitivePaths(["a/b", "c"])
    assert paths.match(("x", "c", "d")) == "c"
    assert paths.match(("a", "b")) == "a/b"
    assert paths.match(("a",)) is None


def test_a_malformed_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern"):
        SensitivePaths(["a/**/b"])


@given(
    before=st.lists(st.sampled_from(["latest", "x", "meta-data"]), max_size=4),
    below=st.lists(st.sampled_from(["x", "y"]), max_size=4),
)
def test_no_prefix_and_nothing_below_takes_a_path_out(before: list[str], below: list[str]) -> None:
    assert DEFAULT.match((*before, "user-data", *below)) is not None
