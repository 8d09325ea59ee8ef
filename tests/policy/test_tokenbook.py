"""The book of tokens that were given, and what is believed of foreign ones (ATTACKS 29, 30a)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.policy.caller import Identity
from imds_proxy.policy.tokenbook import FOREIGN_MEMORY, ForeignTokens, Grant, TokenBook

ME, OTHER = Identity(1000, unit="me.service"), Identity(1001)
KEY = b"k" * 32


def test_a_grant_is_found_with_its_owner_and_its_promise() -> None:
    book = TokenBook()
    book.give(KEY, ME, 100.0)
    assert book.find(KEY) == Grant(ME, 100.0)
    assert book.find(b"another") is None


def test_an_expired_grant_is_found_so_that_it_is_not_taken_for_a_foreign_token() -> None:
    book = TokenBook()
    book.give(KEY, ME, 100.0)
    assert book.find(KEY) is not None
    assert list(book.live(100.0)) == []


def test_changes_are_taken_once() -> None:
    book = TokenBook()
    book.give(KEY, ME, 100.0)
    assert book.take_changes() == [(KEY, Grant(ME, 100.0))]
    assert book.take_changes() == []
    book.give(KEY, ME, 100.0)
    assert book.take_changes() == []
    book.give(KEY, ME, 101.0)
    assert book.take_changes() == [(KEY, Grant(ME, 101.0))]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_a_promise_only_grows(promises: list[float]) -> None:
    book = TokenBook()
    for expires in promises:
        book.give(KEY, ME, expires)
    assert book.find(KEY) == Grant(ME, max(promises))


@given(st.lists(st.integers(0, 30), max_size=100))
def test_the_book_is_bounded_and_changes_never_outlive_it(keys: list[int]) -> None:
    book = TokenBook(size=8)
    for key in keys:
        book.give(bytes([key]), ME, 1.0)
    assert len(list(book.live(0.0))) <= 8
    assert len(book.take_changes()) <= 8


def test_the_services_word_is_believed_for_a_minute_and_for_the_one_who_asked() -> None:
    tokens = ForeignTokens()
    assert not tokens.is_accepted(KEY, ME, 0.0)
    tokens.accepted(KEY, ME, 0.0)
    assert tokens.is_accepted(KEY, ME, FOREIGN_MEMORY - 0.1)
    assert not tokens.is_accepted(KEY, ME, FOREIGN_MEMORY)
    assert not tokens.is_accepted(KEY, OTHER, 1.0)


def test_a_refused_token_is_not_tried_again_for_a_minute_by_anybody() -> None:
    tokens = ForeignTokens()
    assert tokens.may_try(KEY, ME, 0.0)
    tokens.accepted(KEY, ME, 0.0)
    tokens.refused(KEY, ME, 1.0)
    assert not tokens.is_accepted(KEY, ME, 1.0)
    assert not tokens.may_try(KEY, OTHER, 2.0)
    assert tokens.may_try(KEY, OTHER, 1.0 + FOREIGN_MEMORY)


def test_made_up_tokens_run_the_bucket_of_their_sender_dry_and_nobody_elses() -> None:
    tokens = ForeignTokens()
    tried = 0
    for number in range(1000):
        if tokens.may_try(b"%d" % number, ME, 0.0):
            tried += 1
            tokens.refused(b"%d" % number, ME, 0.0)
    assert tried <= 5
    assert tokens.may_try(b"x", OTHER, 0.0)
    assert sum(tokens.may_try(b"%d" % n, ME, 3600.0) for n in range(2000, 3000)) <= 5


def test_a_true_foreign_token_gives_the_try_back() -> None:
    tokens = ForeignTokens()
    for number in range(100):
        key = b"%d" % number
        assert tokens.may_try(key, ME, 0.0)
        tokens.accepted(key, ME, 0.0)
