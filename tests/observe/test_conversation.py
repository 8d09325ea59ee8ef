"""Requests and the statuses that they got, read from both sides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.observe.conversation import Conversation
from packets import HOSTNAME, MAC, PUT, RULES, answer


def told(exchanges: list[Any]) -> list[tuple[str, str, int | None]]:
    return [(one.request.method, one.request.target.path, one.status) for one in exchanges]


def begin() -> Conversation:
    return Conversation(RULES, {})


def test_one_after_the_other_on_one_connection() -> None:
    talk = begin()
    talk.sent(MAC)
    assert told(talk.answered(answer(200))) == [("GET", "/latest/meta-data/mac", 200)]
    talk.sent(HOSTNAME)
    assert told(talk.answered(answer(403))) == [("GET", "/latest/meta-data/hostname", 403)]
    assert talk.close() == []


@given(st.integers(1, len(MAC + HOSTNAME)), st.integers(1, len(answer(200) + answer(404))))
def test_pipelined_and_cut_anywhere(request_cut: int, answer_cut: int) -> None:
    talk, sent, back = begin(), MAC + HOSTNAME, answer(200) + answer(404)
    for piece in (sent[:request_cut], sent[request_cut:]):
        talk.sent(piece)
    found = [one for piece in (back[:answer_cut], back[answer_cut:]) for one in talk.answered(piece)]
    assert told(found) == [("GET", "/latest/meta-data/mac", 200), ("GET", "/latest/meta-data/hostname", 404)]


@pytest.mark.parametrize(
    "tail", [b"\r\n", b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n"]
)
def test_a_token_put_in_all_its_forms(tail: bytes) -> None:
    talk = begin()
    talk.sent(PUT + tail)
    back = (b"HTTP/1.1 100 Continue\r\n\r\n" if b"Expect" in tail else b"") + answer(200, b"token")
    assert told(talk.answered(back)) == [("PUT", "/latest/api/token", 200)]
    talk.sent(MAC)
    assert told(talk.answered(answer(200))) == [("GET", "/latest/meta-data/mac", 200)]


def test_no_bytes_are_no_end() -> None:
    talk = begin()
    talk.sent(b"")
    talk.sent(MAC)
    assert talk.answered(b"") == []
    assert told(talk.answered(answer(200))) == [("GET", "/latest/meta-data/mac", 200)]


def test_what_is_not_answered_is_told_at_the_end() -> None:
    talk = begin()
    talk.sent(MAC)
    assert told(talk.close()) == [("GET", "/latest/meta-data/mac", None)]
    assert talk.close() == []


def test_an_answer_that_ends_with_the_connection_counts_by_its_head() -> None:
    talk = begin()
    talk.sent(b"GET /latest/meta-data/mac HTTP/1.0\r\n\r\n")
    assert told(talk.answered(b"HTTP/1.0 200 OK\r\n\r\n00:16")) == [("GET", "/latest/meta-data/mac", 200)]


def test_what_is_no_request_is_said_and_ends_the_reading() -> None:
    talk = begin()
    talk.sent(b"GET http://100.100.100.200/latest/ HTTP/1.1\r\nHost: x\r\n\r\n")
    assert talk.unreadable is not None
    assert talk.unreadable.refusal.slug == "target-form"
    talk.sent(MAC)
    assert talk.close() == []


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=10))
def test_garbage_on_either_side_breaks_nothing(pieces: list[tuple[bool, bytes]]) -> None:
    talk = begin()
    talk.sent(MAC)
    for from_client, piece in pieces:
        if from_client:
            talk.sent(piece)
        else:
            talk.answered(piece)
    talk.close()
