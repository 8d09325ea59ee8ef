"""The reader of sections, on a dataclass of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from imds_proxy.config_document import ConfigErrors, read_document
from imds_proxy.config_reader import KeyDoc, SectionReader, describe_section, key
from imds_proxy.config_rules import Flag
from imds_proxy.config_values import Count, Word


@dataclass(frozen=True, slots=True)
class Inner:
    count: int = field(default=3, metadata=key(Count(1, 9), "How many."))


@dataclass(frozen=True, slots=True)
class Switched:
    enabled: bool = field(default=True, metadata=key(Flag(), "Whether."))
    count: int = field(default=3, metadata=key(Count(1, 9), "How many."))


@dataclass(frozen=True, slots=True)
class Outer:
    words: tuple[str, ...] = field(default=("a",), metadata=key(Word(("a", "b")), "Which.", many=True))
    inner: Inner = Inner()
    part: Switched = Switched()


def read(text: str) -> tuple[object, SectionReader]:
    tree, errors = read_document(text, "f")
    assert tree is not None
    reader = SectionReader("f", Outer(), list(errors))
    return reader.read(tree), reader


def test_values_take_the_place_of_defaults() -> None:
    value, reader = read("words: [b, a]\ninner: {count: 4}\n")
    assert value == Outer(("b", "a"), Inner(4))
    assert reader.errors == []
    assert reader.lines["inner.count"] == 2


def test_a_value_in_error_leaves_its_default_and_its_key_among_the_failed() -> None:
    value, reader = read("words: [c, a]\ninner: {count: 10}\n")
    assert value == Outer()
    assert reader.failed == {"words", "inner.count"}
    assert [error.line for error in reader.errors] == [1, 2]


def test_after_a_hundred_errors_nothing_more_is_read() -> None:
    with pytest.raises(ConfigErrors) as caught:
        read("words: [" + "c, " * 200_000 + "]")
    assert len(caught.value.errors) == 101
    assert str(caught.value.errors[-1]) == "f:1: more errors follow; 100 are told"


def test_a_section_describes_its_keys_in_order() -> None:
    assert describe_section(Outer()) == (
        KeyDoc("words", "a list, each a | b", "[a]", "Which."),
        KeyDoc("inner.count", "a whole number from 1 to 9", "3", "How many."),
        KeyDoc("part.enabled", "true or false", "true", "Whether."),
        KeyDoc("part.count", "a whole number from 1 to 9", "3", "How many."),
    )


@pytest.mark.parametrize(
    ("word", "enabled"), [("off", False), ("false", False), ("on", True), ("true", True)]
)
def test_a_section_that_can_be_switched_takes_one_word_for_it(word: str, enabled: bool) -> None:
    value, reader = read(f"part: {word}\n")
    assert value == Outer(part=Switched(enabled=enabled))
    assert reader.errors == []


@pytest.mark.parametrize("text", ["part: never\n", "part: 0\n", "inner: off\n"])
def test_another_word_or_another_section_is_an_error(text: str) -> None:
    value, reader = read(text)
    assert value == Outer()
    assert "is a mapping" in reader.errors[0].message
