"""The index of conditions: it leaves out what cannot be met, and nothing else."""

from __future__ import annotations

from imds_proxy.policy.index import ConditionIndex, Text

INDEX = ConditionIndex(
    [
        [("unit", ("web",)), ("user", ("app",))],
        [("user", ("app",))],
        [],
        [("unit", ("db", "we"))],
        [("path", (("meta-data", "mac"),))],
    ]
)


def at(**texts: Text) -> list[int]:
    return list(INDEX.at(lambda fact: [texts[fact]] if fact in texts else []))


def test_what_begins_with_a_head_is_found_in_order_and_what_has_no_condition_always() -> None:
    assert at() == [2]
    assert at(unit="web.service") == [0, 2, 3]
    assert at(unit="w", user="app1") == [1, 2]
    assert at(path=("meta-data", "mac", "x")) == [2, 4]
    assert at(path=("meta-data",)) == [2]


def test_of_some_texts_that_stand_for_the_same_the_rarest_is_looked_up() -> None:
    index = ConditionIndex([[("user", ("app",))], [("user", ("app",))], [("user", ("db",))]])
    assert list(index.wider([("user", ("app", "db"))])) == [2]
    assert index.wider([("user", ("app",))]).size == 2
    assert list(index.wider([])) == []


def test_the_longest_head_says_how_much_of_a_text_is_needed() -> None:
    assert INDEX.longest == 3
    assert ConditionIndex([[]]).longest == 0
