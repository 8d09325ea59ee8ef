"""The canonical target (ATTACKS 1-6, 8): one meaning gives one form, two meanings are refused."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from imds_proxy.errors import (
    TARGET_CHARACTER,
    TARGET_DOTS,
    TARGET_ENCODING,
    TARGET_FORM,
    TARGET_PARAMS,
    Refusal,
    Refused,
)
from imds_proxy.protocol.target import canonical_target

ROLE = b"/latest/meta-data/ram/security-credentials/role"
UNRESERVED = string.ascii_letters + string.digits + "-._~"
SEGMENT = st.text(UNRESERVED + "!$&'()*+,=:@ \"<>[]^`{|}", min_size=1, max_size=12).filter(
    lambda text: text not in {".", ".."}
)
SEGMENTS = st.lists(SEGMENT, max_size=6)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"//", "/"),
        (b"//latest/meta-data", "/latest/meta-data"),
        (b"/latest//meta-data///ram", "/latest/meta-data/ram"),
        (b"/latest/meta-data//", "/latest/meta-data/"),
        (b"/latest/%6deta-data/mac", "/latest/meta-data/mac"),
        (b"/latest/meta%2Ddata/mac", "/latest/meta-data/mac"),
        (b"/latest/meta%2ddata/mac", "/latest/meta-data/mac"),
        (b"/Latest/User-Data", "/Latest/User-Data"),
        (b"/a/my%20role", "/a/my%20role"),
        (b"/a/role%5b1%5d", "/a/role%5B1%5D"),
        (b"/a/00:16:3e:00:00:01/", "/a/00:16:3e:00:00:01/"),
        (b"/a/x@y,z=1", "/a/x@y,z=1"),
        (b"/a/...", "/a/..."),
        (b"/a/..b", "/a/..b"),
    ],
)
def test_one_meaning_has_one_form(raw: bytes, path: str) -> None:
    assert canonical_target(raw).path == path


@pytest.mark.parametrize(
    ("raw", "refusal"),
    [
        # Row 1: encodings that hide something.
        *[
            (ROLE.replace(b"/role", hidden), TARGET_ENCODING)
            for hidden in (
                b"%2frole", b"%2Frole", b"/%5crole", b"/role%00", b"/ro%c0%afle", b"/%252e%252e", b"/%25",
                b"/%3faudience=x", b"/%23", b"/%0a", b"/%0d%0aX:%20y", b"/%7f", b"/%c3%a9", b"/%ff",
                b"/%", b"/%2", b"/%zz", b"/%u002e", b"/%e0%80%af", b"/a%",
            )
        ],
        (b"/latest/%2e%2e/user-data", TARGET_DOTS),
        (b"/latest/%2E/user-data", TARGET_DOTS),
        (b"/latest/.%2e/user-data", TARGET_DOTS),
        # Row 2: dot segments.
        (b"/./latest", TARGET_DOTS),
        (b"/latest/../latest/user-data", TARGET_DOTS),
        (b"/latest/meta-data/..", TARGET_DOTS),
        (b"/latest/meta-data/.", TARGET_DOTS),
        (b"/../../etc/passwd", TARGET_DOTS),
        # Row 4: characters and parameters.
        (b"/latest/user-data;x=y", TARGET_PARAMS),
        (b"/latest;a=b/user-data", TARGET_PARAMS),
        (b"/latest/user-data%3bx=y", TARGET_PARAMS),
        (b"/latest/user-data#top", TARGET_CHARACTER),
        (b"/latest/user-data?#", TARGET_CHARACTER),
        (b"/latest/\x00user-data", TARGET_CHARACTER),
        (b"/latest/\tuser-data", TARGET_CHARACTER),
        (b"/latest/\x7fuser-data", TARGET_CHARACTER),
        (b"/latest/caf\xc3\xa9", TARGET_CHARACTER),
        (b"/latest\\user-data", TARGET_CHARACTER),
        (b"/latest/dynamic/instance-identity/pkcs7?audience=\x7f", TARGET_CHARACTER),
        (b"/latest/dynamic/instance-identity/pkcs7?audience=\xff", TARGET_CHARACTER),
        (b"/latest/dynamic/instance-identity/pkcs7?audience=a b", TARGET_CHARACTER),
        # Row 8: forms that are not a path.
        (b"", TARGET_FORM),
        (b"*", TARGET_FORM),
        (b"100.100.100.200:80", TARGET_FORM),
        (b"http://100.100.100.200/latest/", TARGET_FORM),
        (b"HTTP://user:pw@100.100.100.200/latest/", TARGET_FORM),
        (b"http://1684300900/latest/", TARGET_FORM),
        (b"http://0144.0144.0144.0310/", TARGET_FORM),
        (b"http://[::ffff:100.100.100.200]/", TARGET_FORM),
        (b"latest/user-data", TARGET_FORM),
        (b"\\latest", TARGET_FORM),
    ],
)  # fmt: skip
def test_what_could_mean_two_things_is_refused(raw: bytes, refusal: Refusal) -> None:
    with pytest.raises(Refused) as caught:
        canonical_target(raw)
    assert caught.value.refusal is refusal


@pytest.mark.parametrize(
    ("raw", "query"),
    [
        (b"/x", None),
        (b"/x?", ""),
        (b"/x?a=b&c=%2F", "a=b&c=%2F"),
        (b"/x?a=%41", "a=%41"),
        (b"/x??", "?"),
    ],
)
def test_a_query_is_kept_verbatim(raw: bytes, query: str | None) -> None:
    assert canonical_target(raw).query == query


def test_segments_are_in_lower_case_and_the_path_is_as_asked() -> None:
    target = canonical_target(b"/LATEST/meta-data/Ram/Security-Credentials/My-Role")
    assert target.segments == ("latest", "meta-data", "ram", "security-credentials", "my-role")
    assert target.path == "/LATEST/meta-data/Ram/Security-Credentials/My-Role"
    assert not target.directory


def test_a_trailing_slash_makes_a_directory_of_the_same_segments() -> None:
    leaf, directory = canonical_target(b"/a/b"), canonical_target(b"/a/b/")
    assert leaf.segments == directory.segments
    assert (leaf.directory, directory.directory) == (False, True)
    assert leaf.key != directory.key


def test_text_is_path_and_query() -> None:
    assert canonical_target(b"//a?b=c").text == "/a?b=c"
    assert canonical_target(b"/a").text == "/a"


def spelled(segment: str, choose: st.DataObject) -> bytes:
    """One of the spellings of a segment: each character as it is or encoded, in either case of hex."""
    out = b""
    for character in segment:
        how = choose.draw(st.sampled_from(["plain", "lower", "upper"]))
        if character == " " and how == "plain":
            how = "upper"
        out += {
            "plain": character.encode(),
            "lower": b"%%%02x" % ord(character),
            "upper": b"%%%02X" % ord(character),
        }[how]
    return out


@given(segments=SEGMENTS, slash=st.booleans(), choose=st.data())
def test_all_spellings_of_one_path_give_one_key(
    segments: list[str], slash: bool, choose: st.DataObject
) -> None:
    def spelling() -> bytes:
        gap = choose.draw(st.sampled_from([b"/", b"//", b"///"]))
        body = b"".join(gap + spelled(segment, choose) for segment in segments)
        return (body + (b"/" if slash else b"")) or b"/"

    one, other = canonical_target(spelling()), canonical_target(spelling())
    assert one.key == other.key
    assert one == other


@given(segments=SEGMENTS, others=SEGMENTS)
def test_paths_that_differ_keep_different_keys(segments: list[str], others: list[str]) -> None:
    assume(segments != others)

    def key(parts: list[str]) -> object:
        encoded = ["".join(f"%{ord(character):02X}" for character in part) for part in parts]
        return canonical_target(("/" + "/".join(encoded)).encode()).key

    assert key(segments) != key(others)


@given(raw=st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda tail: b"/" + tail)))
def test_canonical_of_canonical_is_canonical_and_nothing_else_escapes(raw: bytes) -> None:
    try:
        target = canonical_target(raw)
    except Refused:
        return
    assert canonical_target(target.text.encode("ascii")) == target
    assert target.path.startswith("/")
    assert "//" not in target.path
    assert re.fullmatch(r"[!-~]*", target.text)
    assert not {".", ".."} & set(target.segments)
    assert not re.search(r"%(2[fF]|5[cC]|25|00)", target.path)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/latest/meta-data/mac", None),
        ("/latest/" + "Ab1" * 20, "/latest/***"),
        ("/latest/" + "Ab1" * 20 + "==/x/", "/latest/***/x/"),
        ("/latest/meta-data/" + "Ab1" * 12, None),  # shorter than a token
        ("/latest/meta-data/" + "ab1" * 20, None),  # a hash
        ("/latest/meta-data/ram/security-credentials/" + "Ab1" * 20, None),  # the name of a role
        ("/latest/meta-data/tags/instance/acs:autoscaling:scalingGroupIdOfTheGroup1", None),
    ],
)
def test_what_may_be_a_secret_in_a_path_is_not_shown(path: str, shown: str | None) -> None:
    target = canonical_target(path.encode())
    assert target.path == path
    assert target.shown == (shown or path)


def test_a_twin_differs_by_its_last_slash_only() -> None:
    target = canonical_target(b"/latest/meta-data/ram")
    assert target.is_twin(canonical_target(b"/latest/meta-data/ram/"))
    assert not target.is_twin(canonical_target(b"/latest/meta-data/ram/security-credentials/"))
