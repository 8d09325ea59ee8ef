"""A fair queue: turns go round over callers, and nothing is lost or given twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.policy.fairqueue import FairQueue

PUSHES = st.lists(st.integers(0, 4), max_size=60)


def test_a_greedy_caller_delays_the_others_by_one_turn_each() -> None:
    queue: FairQueue[str] = FairQueue(100, 1000)
    for number in range(50):
        queue.push("greedy", f"g{number}")
    queue.push("a", "a0")
    queue.push("b", "b0")
    assert [queue.pop() for _ in range(5)] == ["g0", "a0", "b0", "g1", "g2"]


def test_it_is_bounded_for_each_caller_and_in_all() -> None:
    queue: FairQueue[int] = FairQueue(2, 3)
    assert [queue.push("a", n) for n in range(3)] == [True, True, False]
    assert [queue.push("b", n) for n in range(2)] == [True, False]


def test_who_has_gone_is_taken_out_and_a_second_time_is_no_error() -> None:
    queue: FairQueue[str] = FairQueue(9, 9)
    queue.push("a", "x")
    queue.push("a", "y")
    queue.discard("a", "x")
    queue.discard("a", "x")
    queue.discard("b", "x")
    assert (len(queue), queue.pop(), queue.pop()) == (1, "y", None)


@given(PUSHES)
def test_everything_comes_out_once_and_in_order_for_each_caller(callers: list[int]) -> None:
    queue: FairQueue[tuple[int, int]] = FairQueue(100, 100)
    for number, caller in enumerate(callers):
        assert queue.push(caller, (caller, number))
    out = []
    while (item := queue.pop()) is not None:
        out.append(item)
    assert sorted(out) == sorted((caller, number) for number, caller in enumerate(callers))
    for caller in set(callers):
        mine = [number for who, number in out if who == caller]
        assert mine == sorted(mine)


@given(PUSHES)
def test_between_two_turns_of_a_caller_every_other_waiting_one_has_had_one(callers: list[int]) -> None:
    queue: FairQueue[int] = FairQueue(100, 100)
    for caller in callers:
        queue.push(caller, caller)
    waiting = Counter(callers)
    while len(queue):
        round_of = [queue.pop() for _ in range(len([c for c in waiting if waiting[c]]))]
        assert len(set(round_of)) == len(round_of)
        waiting.subtract(c for c in round_of if c is not None)
