"""Whatever the order, and however often each comes, the bytes are the same."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.observe.stream import Stream

START = (1 << 32) - 5  # wraps round soon


@given(st.binary(min_size=1, max_size=80), st.randoms(use_true_random=False), st.data())
def test_segments_in_any_order_twice_and_overlapping_give_the_bytes_once(
    content: bytes, chance: object, data: st.DataObject
) -> None:
    stream = Stream()
    stream.begin(START)
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=6))
    edges = sorted({0, len(content), *cuts})
    pieces = list(pairwise(edges))
    extra = data.draw(st.lists(st.sampled_from(pieces), max_size=4)) if pieces else []
    overlap = [(max(0, begin - 2), end) for begin, end in pieces]
    order = [*pieces, *extra, *overlap]
    chance.shuffle(order)  # type: ignore[attr-defined]
    out = b"".join(stream.feed((START + 1 + begin) % (1 << 32), content[begin:end]) for begin, end in order)
    assert out == content
    assert not stream.lost


def test_without_a_syn_it_begins_with_what_comes_first() -> None:
    stream = Stream()
    assert stream.feed(1000, b"abc") == b"abc"
    assert stream.feed(1003, b"de") == b"de"
    assert stream.feed(1000, b"abc") == b""


def test_a_hole_that_is_never_filled_is_given_up() -> None:
    stream = Stream()
    stream.begin(0)
    for number in range(70):
        assert stream.feed(100 + number * 10, b"x" * 10) == b""
    assert stream.lost
    assert stream.feed(1, b"x") == b""


def test_a_syn_sent_again_is_the_same_one() -> None:
    stream = Stream()
    stream.begin(9)
    assert stream.is_at(9)
    stream.feed(10, b"x")
    assert not stream.is_at(9)
