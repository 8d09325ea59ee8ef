"""YAML as the configuration takes it: a plain tree, and nothing else."""

from __future__ import annotations

import pytest

from imds_proxy.config_document import ConfigErrors, Items, Scalar, Section, read_document

BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        read_document(text, "f")
    return [str(error) for error in caught.value.errors]


def test_each_node_knows_its_line_and_what_yaml_takes_it_for() -> None:
    tree, errors = read_document("a: on\nb:\n  - 12\n  - x\n", "f")
    assert errors == ()
    assert tree == Section(
        (
            (Scalar("a", "str", 1), Scalar("on", "bool", 1)),
            (Scalar("b", "str", 2), Items((Scalar("12", "int", 3), Scalar("x", "str", 4)), 3)),
        ),
        1,
    )


def test_a_duplicate_key_is_an_error_that_names_both_lines_and_keeps_the_first() -> None:
    tree, errors = read_document("a: 1\nb: 2\na: 3\n", "f")
    assert [str(error) for error in errors] == ["f:3: duplicate key 'a', first on line 1; one is allowed"]
    assert isinstance(tree, Section)
    assert [key.text for key, _ in tree.entries] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (BOMB, 1, "anchor &a"),
        ("a: 1\nb: *x", 2, "alias *x"),
        ("a: !!str 1", 1, "tags are not allowed"),
        ("a: !!python/object/apply:os.system [x]", 1, "tags are not allowed"),
        ("a: 1\n---\nb: 2", 2, "a second document"),
        ("a:\n\t- 1", 2, "tabs are not allowed"),
        ("a: [1", 1, "not valid YAML"),
        ("a: 'x", 1, "not valid YAML"),
        ("a: b: c", 1, "not valid YAML"),
        ("a: 1\nb: \x1b[31m", 2, "control character U+001B"),
        ("a: 1\nb: \u2028c", 2, "control character U+2028"),
        ("a: \ud800", 1, "control character U+D800"),
        ("a: " + "[" * 40 + "]" * 40, 1, "nested more than"),
        ("a: " + "[" * 100_000, 1, "nest"),  # newer parsers have a limit of their own
        ("a: [" + "1," * 600_000, 1, "YAML events"),
    ],
)
def test_what_a_configuration_does_not_need_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    errors = refused(text)
    place, sentence = errors[0].split(": ", 1)
    assert said in sentence
    # An open bracket is noticed where the text ends, by some versions of libyaml on the next line.
    assert place in {f"f:{line}", f"f:{line + 1}"}


def test_of_many_refused_constructs_a_hundred_are_told() -> None:
    errors = refused("a: [" + "*b, " * 200_000 + "]")
    assert len(errors) == 101
    assert errors[-1] == "f:1: more errors follow; 100 are told"


def test_of_many_duplicates_a_hundred_are_told_and_one_more_is_counted() -> None:
    _, errors = read_document("a: 1\n" * 1000, "f")
    assert len(errors) == 101


def test_what_is_quoted_is_a_text_whatever_it_says() -> None:
    tree, _ = read_document("- '1'\n- \"on\"\n- 1\n- on\n- ~\n- |\n  2\n", "f")
    assert isinstance(tree, Items)
    assert [one.tag for one in tree.items if isinstance(one, Scalar)] == [
        "str",
        "str",
        "int",
        "bool",
        "null",
        "str",
    ]


def test_a_key_must_be_a_scalar() -> None:
    _, errors = read_document("? [a]\n: b\n", "f")
    assert "a key is one word" in str(errors[0])


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_document_has_no_errors(text: str) -> None:
    tree, errors = read_document(text, "f")
    assert errors == ()
    assert tree is None or (isinstance(tree, Scalar) and tree.tag == "null")
