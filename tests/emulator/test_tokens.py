import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.emulator.tokens import TokenStore, parse_ttl


@pytest.mark.parametrize("text", ["1", "60", "21600", "0060"])
def test_a_ttl_in_range_is_taken(text: str) -> None:
    assert parse_ttl(text) == int(text)


@pytest.mark.parametrize("text", [None, "", "0", "21601", "-1", "+60", "60s", "6e2", "1.5", "٣٠", "9" * 5000])
def test_any_other_ttl_is_not(text: str | None) -> None:
    assert parse_ttl(text) is None


@given(st.text())
def test_no_ttl_text_raises(text: str) -> None:
    assert parse_ttl(text) is None or 1 <= int(text) <= 21600


def test_a_token_is_visible_ascii_and_ends_in_two_equal_signs() -> None:
    token = TokenStore().issue(60, now=0)
    assert re.fullmatch(r"zqXk8Yn1[A-Za-z0-9_-]{46}==", token)


def test_a_token_is_valid_until_it_expires_and_only_where_it_was_issued() -> None:
    store = TokenStore()
    token = store.issue(60, now=100)
    assert store.valid(token, 100) and store.valid(token, 159.9)
    assert not store.valid(token, 160)
    assert not store.valid("made-up", 100)
    assert not TokenStore().valid(token, 100)


def test_revoking_ends_all_tokens() -> None:
    store = TokenStore()
    token = store.issue(60, now=0)
    store.revoke_all()
    assert not store.valid(token, 0) and store.live(0) == 0


def test_expired_tokens_do_not_pile_up_and_are_not_counted() -> None:
    store = TokenStore()
    for second in range(5000):
        store.issue(10, now=second)
    assert store.live(5000) == 9
    assert len(store._expiry) <= 1024
