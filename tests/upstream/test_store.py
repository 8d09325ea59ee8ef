"""The store of answers: bounded, and one caller cannot evict another's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.policy.freshness import Lifetime
from imds_proxy.protocol.profile import ItemClass
from imds_proxy.protocol.responses import plain
from imds_proxy.protocol.target import canonical_target
from imds_proxy.upstream.store import AnswerStore, Stored


def stored(name: str, owner: str = "a", body: bytes = b"") -> Stored:
    target = canonical_target(f"/latest/meta-data/{name}".encode())
    return Stored(target, ItemClass.STATIC, plain(200, body), Lifetime(1, 1), 0.0, owner)


def test_an_answer_is_kept_replaced_and_forgotten() -> None:
    store = AnswerStore(16, 100_000)
    store.put("k", stored("k", body=b"1"))
    store.put("k", stored("k", body=b"2"))
    found = store.get("k")
    assert found is not None
    assert (found.answer.body, len(store), store.size) == (b"2", 1, found.cost)
    store.forget("k")
    store.forget("k")
    assert (store.get("k"), len(store), store.size) == (None, 0, 0)


def test_ever_new_items_of_one_caller_evict_its_own_and_nobody_elses() -> None:
    store = AnswerStore(64, 10_000_000)
    for number in range(10):
        store.put(("b", number), stored(str(number), "b"))
    for number in range(1000):
        store.put(("a", number), stored(str(number), "a"))
    assert all(store.get(("b", number)) for number in range(10))
    assert [key for key, _ in store.items() if key[0] == "a"] == [("a", n) for n in range(984, 1000)]  # type: ignore[index]


def test_what_was_asked_for_lately_is_evicted_last() -> None:
    store = AnswerStore(16, 10_000_000)
    for number in range(4):
        store.put(number, stored(str(number)))
    store.get(0)
    store.put(4, stored("4"))
    assert {key for key, _ in store.items()} == {0, 2, 3, 4}


def test_an_answer_larger_than_a_callers_share_is_not_kept() -> None:
    store = AnswerStore(16, 100_000)
    store.put("k", stored("k", body=b"x"))
    store.put("k", stored("k", body=bytes(25_000)))
    assert store.get("k") is None


def test_smaller_bounds_hold_at_once() -> None:
    store = AnswerStore(64, 10_000_000)
    for number in range(60):
        store.put(number, stored(str(number), owner=str(number % 4)))
    store.change(16, 20_000)
    assert len(store) <= 16
    assert store.size <= 20_000


def test_those_of_a_condition_are_forgotten() -> None:
    store = AnswerStore(64, 10_000_000)
    for number in range(10):
        store.put(number, stored(str(number), owner=str(number % 2)))
    store.forget_where(lambda one: one.owner == "1")
    assert {key for key, _ in store.items()} == {0, 2, 4, 6, 8}


Steps = st.lists(
    st.tuples(st.sampled_from("pgf"), st.integers(0, 30), st.sampled_from("abc"), st.integers(0, 9000)),
    max_size=120,
)


@given(Steps)
def test_the_bounds_hold_whatever_comes(steps: list[tuple[str, int, str, int]]) -> None:
    store = AnswerStore(16, 40_000)
    for kind, number, owner, size in steps:
        if kind == "p":
            store.put(number, stored(str(number), owner, bytes(size)))
        elif kind == "g":
            store.get(number)
        else:
            store.forget(number)
        left = [one for _, one in store.items()]
        assert len(left) == len(store) <= 16
        assert sum(one.cost for one in left) == store.size <= 40_000
        for name in "abc":
            own = [one.cost for one in left if one.owner == name]
            assert len(own) <= 4
            assert sum(own) <= 10_000


def test_whoever_holds_an_answer_learns_that_its_lifetime_was_cut() -> None:
    store = AnswerStore(64, 10_000_000)
    held = stored("a")
    store.put("a", held)
    assert held.until == 1
    store.limit(held, Lifetime(0.5, 0.5))
    assert (held.until, held.lifetime) == (0.5, Lifetime(0.5, 0.5))


def test_the_head_of_an_answer_counts_too() -> None:
    long = stored("a")
    long.answer = plain(200, b"", [(b"Etag", b"x" * 9000)])
    assert long.cost > stored("a").cost + 9000


def test_whoever_asked_is_told_when_an_answer_ends_before_its_time() -> None:
    store, told = AnswerStore(16, 100_000), []
    for how in ("put", "forget", "limit", "change", "where"):
        one = stored("k")
        store.put("k", one)
        one.ended = lambda how=how: told.append(how)
        if how == "put":
            store.put("k", stored("k"))
        elif how == "forget":
            store.forget("k")
        elif how == "limit":
            store.limit(one, Lifetime(0.5, 0.5))
            one.ended = None
        elif how == "change":
            store.change(0, 0)
            store.change(16, 100_000)
        else:
            store.forget_where(lambda _: True)
    assert told == ["put", "forget", "limit", "change", "where"]
