"""Times in credentials and in Date headers."""

from __future__ import annotations

import calendar
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.protocol.credentials import CredentialTimes, credential_times, http_date, sets_within

# The form of the captures: blanks before the brace and before each colon.
CAPTURED = b""" {
  "AccessKeyId" : "STS.N",
  "AccessKeySecret" : "s",
  "Expiration" : "2025-01-12T17:28:43Z",
  "SecurityToken" : "CAIS",
  "LastUpdated" : "2025-01-12T11:28:43Z",
  "Code" : "Success"
}"""


def test_a_captured_set_has_six_hours() -> None:
    assert credential_times(CAPTURED) == CredentialTimes(1736702923.0, 21600.0)


def test_a_set_that_does_not_say_when_it_was_made_is_taken_for_one_of_six_hours() -> None:
    body = json.dumps({"Code": "Success", "Expiration": "2025-01-12T17:28:43Z"}).encode()
    assert credential_times(body) == CredentialTimes(1736702923.0, 21600.0)


@pytest.mark.parametrize(
    "change",
    [
        {"Code": "Failed"},
        {"Code": None},
        {"Expiration": None},
        {"Expiration": 5},
        {"Expiration": "tomorrow"},
        {"Expiration": "2025-13-12T17:28:43Z"},
        {"Expiration": "2025-01-12T17:28:43+08:00"},
        {"Expiration": "2025-01-12T17:28:43Z\n"},
        {"LastUpdated": "2025-01-12T17:28:44Z"},  # after its end
    ],
)
def test_what_is_not_surely_a_set_has_no_times(change: dict[str, Any]) -> None:
    assert credential_times(json.dumps({**json.loads(CAPTURED), **change}).encode()) is None


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"[" * 9999, b'"x"', b"\xff", CAPTURED * 1000])
def test_a_body_that_is_no_such_object_has_none(body: bytes) -> None:
    assert credential_times(body) is None


@given(st.binary(max_size=200))
def test_no_bytes_raise(body: bytes) -> None:
    credential_times(body)
    http_date(body)


@given(st.integers(0, 4_000_000_000))
def test_a_date_is_read_as_it_was_written(seconds: int) -> None:
    written = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds)).encode()
    assert http_date(written) == seconds == calendar.timegm(time.gmtime(seconds))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"soon",
        b"Tue, 99 Foo 2025 10:00:00 GMT",
        b"Tue, 14 Jan 2025 25:00:00 GMT",
        b"Tue, 14 Jan 2025 10:00:00 +0800",
        b"Tuesday, 14-Jan-25 10:00:00 GMT",
        b"\xff",
    ],
)
def test_what_is_no_date_is_none(value: bytes) -> None:
    assert http_date(value) is None


def tree(**ram: object) -> bytes:
    return json.dumps(
        {"mac": "00:16:3e:00:00:01", "ram": {"security-credentials": ram}, "x": [1, None]}
    ).encode()


def test_sets_are_found_anywhere_in_the_json_of_all_items_as_objects_and_as_text() -> None:
    times = credential_times(CAPTURED)
    assert times is not None
    assert sets_within(tree(a=json.loads(CAPTURED), b=CAPTURED.decode())) == (times, times)
    assert sets_within(CAPTURED) == (times,)
    assert sets_within(tree()) == ()
    assert sets_within(b"00:16:3e:00:00:01") == ()


@pytest.mark.parametrize(
    "body",
    [
        b"AccessKeySecret: x",
        tree(a={"SecurityToken": "x"}),
        tree(a={**json.loads(CAPTURED), "Code": "Failed"}, b=json.loads(CAPTURED)),
        tree(a="the SecurityToken"),
        b'{"SecurityToken":' * 9999,
        b" " * 1_100_000 + CAPTURED,
    ],
)
def test_where_a_body_may_hold_a_set_whose_end_cannot_be_told_that_is_said(body: bytes) -> None:
    assert sets_within(body) is None


@given(st.binary(max_size=99), st.binary(max_size=99))
def test_no_bytes_around_a_secret_raise(before: bytes, after: bytes) -> None:
    assert sets_within(before + b"SecurityToken" + after) is None
