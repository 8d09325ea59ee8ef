"""Kinds of value: text to value and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.config_values import (
    Address,
    Duration,
    HostValue,
    Size,
    format_duration,
    format_size,
    parse_address,
    printable,
    quoted,
)

ANY_DURATION = Duration(0, 1e12)
ANY_SIZE = Size(0, 10**15)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("900ms", 0.9), ("1s", 1.0), ("5m", 300.0), ("6h", 21600.0), ("1d", 86400.0), ("0s", 0.0)],
)
def test_a_duration_is_seconds_and_is_shown_as_it_was_written(text: str, seconds: float) -> None:
    assert ANY_DURATION.read(text, "str") == seconds
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    "text", ["", "s", "1", "1 s", "1.5s", "-1s", "1S", "1h30m", "1us", "1w", "\u0661s", "1e3s"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        ANY_DURATION.read(text, "str")


@given(st.integers(min_value=0, max_value=10**9))
def test_every_whole_number_of_milliseconds_survives_being_shown(milliseconds: int) -> None:
    shown = format_duration(milliseconds / 1000)
    assert ANY_DURATION.read(shown, "str") == milliseconds / 1000


@given(st.integers(min_value=0, max_value=10**12 - 1))
def test_every_size_survives_being_shown(size: int) -> None:
    assert ANY_SIZE.read(format_size(size), "str") == size


@pytest.mark.parametrize("text", ["", "1", "1K", "1KB", "1kib", "1GiB", "-1B", "1.5MiB", "0x10B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        ANY_SIZE.read(text, "str")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:8100", Address("::1", 8100)),
        ("[FD00:100:0::100:200]:80", Address("fd00:100::100:200", 80)),
    ],
)
def test_an_address_has_one_normal_form(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        ":80",
        "localhost:80",
        "::1:80",
        "[::1]",
        "[127.0.0.1]:80",
        "127.1:80",
        "0177.0.0.1:80",
        "2130706433:80",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1: 80",
        "127.0.0.1:8_0",
        "[::ffff:127.0.0.1]:80",
        "[fe80::1%eth0]:80",
        "127.0.0.1:80\n",
    ],
)
def test_odd_spellings_of_an_address_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|port"):
        parse_address(text)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error_with_a_printable_sentence(text: str) -> None:
    try:
        parse_address(text)
    except ValueError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("text", ["a", "A.b-c", "1.2.3.4", "1.2.3.4:80", "[::1]", "[::1]:80"])
def test_a_host_value_is_lower_case(text: str) -> None:
    assert HostValue().read(text, "str") == text.lower()


@pytest.mark.parametrize(
    "text", ["a b", "a.", ".a", "a:", "a:0", "a:99999", "[::1", "[x]", "a/b", "ä", "a@b", "-a"]
)
def test_what_no_host_header_holds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        HostValue().read(text, "str")


def test_quotes_are_escaped_and_bounded() -> None:
    assert quoted("\x1b[31m\n") == r"'\x1b[31m\n'"
    assert len(quoted("x" * 1000)) < 70
    assert printable("\u202eevil\udcff") == r"\u202eevil\udcff"
