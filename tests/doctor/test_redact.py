"""What may stand in a file that is handed on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.doctor.redact import body_as_facts, headers_as_facts, removed, scrub


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('{"AccessKeySecret" : "abcdef"}', "abcdef"),
        ('{"securitytoken":"abcdef', "abcdef"),
        ("id STS.NUabcdefg here", "NUabcdefg"),
        ("id LTAI5tabcdefg here", "5tabcdefg"),
        ("ssh-rsa AAAAB3Nza me@here", "B3Nza"),
        ("-----BEGIN PRIVATE KEY-----\nabcdef\n-----END PRIVATE KEY-----", "abcdef"),
        ("-----BEGIN CERTIFICATE-----\nabcdef", "abcdef"),
        ("x" * 44, "x" * 10),
    ],
)
def test_what_has_the_form_of_a_secret_is_removed(text: str, secret: str) -> None:
    assert secret not in scrub(text, [])


def test_a_longer_secret_is_removed_before_one_that_is_its_beginning() -> None:
    assert scrub("abcdefgh abcd", ["abcd", "abcdefgh"]) == f"{removed(8)} {removed(4)}"


def test_headers_keep_their_order_and_lose_secrets() -> None:
    facts = headers_as_facts([("Server", "x"), ("Set-Cookie", "a=b"), ("X", "say toktok")], ["toktok"])
    assert facts == [["Server", "x"], ["Set-Cookie", "<removed 3 bytes>"], ["X", "say <removed 6 bytes>"]]


def test_a_listing_is_kept_and_free_text_is_not() -> None:
    assert body_as_facts(b"a/\nb-1\n", 200, [], secret=False)["text"] == "a/\nb-1\n"
    assert body_as_facts(b"a/\r\nb", 200, [], secret=False)["crlf"] == 1
    assert body_as_facts(b"hello world", 200, [], secret=False)["text"] == "<removed 11 bytes>"
    assert body_as_facts(b"a\n", 200, [], secret=True)["text"] == "<removed 2 bytes>"
    assert body_as_facts(b"", 200, [], secret=True)["text"] == ""


def test_an_error_page_is_kept_even_of_a_secret_item() -> None:
    facts = body_as_facts(b"<html>404 - Not Found</html>", 404, [], secret=True)
    assert facts["text"] == "<html>404 - Not Found</html>"


def test_the_first_line_is_told_by_its_form_alone() -> None:
    facts = body_as_facts(b" Ab9=\nrest", 200, [], secret=True)
    assert facts["first_line"] == {"length": 5, "characters": " 9=Aa", "leading_blanks": 1}


@given(st.binary(max_size=200), st.integers(min_value=200, max_value=599))
def test_any_body_gives_facts_that_are_json(body: bytes, status: int) -> None:
    facts = body_as_facts(body, status, [], secret=True)
    assert json.loads(json.dumps(facts))["length"] == len(body)


@given(st.text(alphabet=st.characters(codec="ascii"), min_size=4, max_size=40), st.text(max_size=40))
def test_a_known_secret_never_survives(secret: str, around: str) -> None:
    if secret in removed(len(secret)):
        return
    kept = scrub(f"{around}{secret}{around}", [secret])
    assert kept.count(secret) == 0 or secret in "<removed 0123456789 bytes>"
