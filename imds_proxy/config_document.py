"""YAML text to a small tree with line numbers, refusing what a configuration does not need.

Knows no key and no kind of value: anchors, aliases, tags, depth and duplicates are all it judges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from imds_proxy.config_values import printable, quoted

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 8
_MOST_EVENTS = 20_000
# Tab, LF and CR are YAML's own; U+2028 and U+2029 are line breaks to it and to nobody else.
_REFUSED_CHARACTER = re.compile(
    r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)


@dataclass(frozen=True, slots=True)
class ConfigError:
    """One thing that is wrong. `line` counts from 1; 0 stands for the file as a whole."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


class ConfigErrors(Exception):
    """A configuration is refused; `errors` are all the reasons, in the order of their lines."""

    def __init__(self, errors: tuple[ConfigError, ...]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar's text and YAML's opinion of it: `str`, `int`, `float`, `bool`, `null`, `timestamp`, ..."""

    text: str
    tag: str
    line: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping. Of duplicate keys only the first is here."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int


Node = Scalar | Items | Section


def read_document(text: str, name: str) -> tuple[Node | None, tuple[ConfigError, ...]]:
    """The tree (None for an empty document) and the errors that leave it readable (duplicate keys).

    Raises ConfigErrors where there is no tree: bad syntax, or a construct that is refused.
    """
    _refuse_characters(text, name)
    try:
        _refuse_constructs(text, name)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise ConfigErrors((_syntax_error(error, text, name),)) from None
    if root is None:
        return None, ()
    errors: list[ConfigError] = []
    tree = _convert(root, name, errors)
    return tree, tuple(errors)


def _refuse_characters(text: str, name: str) -> None:
    body = text.removeprefix("\ufeff")
    match = _REFUSED_CHARACTER.search(body)
    if match:
        line = body.count("\n", 0, match.start()) + 1
        message = f"control character U+{ord(match[0]):04X}; only printable text is allowed"
        raise ConfigErrors((ConfigError(name, line, message),))


def _refuse_constructs(text: str, name: str) -> None:
    """One pass over the events, so that nothing is built from what would be refused."""
    errors: list[ConfigError] = []
    depth = documents = 0
    events: Iterable[Any] = yaml.parse(text, Loader=_LOADER)
    for count, event in enumerate(events):
        line = event.start_mark.line + 1
        if count > _MOST_EVENTS:
            errors.append(ConfigError(name, line, f"more than {_MOST_EVENTS} YAML events; a file is small"))
            break
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                errors.append(ConfigError(name, line, "a second document begins here; one is allowed"))
                break
        if isinstance(event, yaml.AliasEvent):
            errors.append(ConfigError(name, line, f"alias *{event.anchor}; write the value out instead"))
        elif getattr(event, "anchor", None):
            errors.append(ConfigError(name, line, f"anchor &{event.anchor}; write the value out instead"))
        if getattr(event, "tag", None):
            errors.append(ConfigError(name, line, f"tag {quoted(event.tag)}; tags are not allowed"))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                errors.append(ConfigError(name, line, f"nested more than {_DEEPEST} deep"))
                break
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    if errors:
        raise ConfigErrors(tuple(errors))


def _syntax_error(error: yaml.YAMLError, text: str, name: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else 1
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    context = getattr(error, "context", None)
    where = f" ({context})" if context else ""
    # The parser says only that a character cannot stand there, not that it is the tab one cannot see.
    at_fault = [*text.splitlines(), ""][min(line - 1, text.count("\n"))]
    indent = at_fault[: len(at_fault) - len(at_fault.lstrip())]
    hint = "; indent with spaces, tabs are not allowed" if "\t" in indent else ""
    return ConfigError(name, line, f"not valid YAML: {printable(problem)}{where}{hint}")


def _convert(node: Any, name: str, errors: list[ConfigError]) -> Node:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return Scalar(node.value, node.tag.rpartition(":")[2], line)
    if isinstance(node, yaml.SequenceNode):
        return Items(tuple(_convert(item, name, errors) for item in node.value), line)
    entries: dict[str, tuple[Scalar, Node]] = {}
    for key_node, value_node in node.value:
        key = _convert(key_node, name, errors)
        if not isinstance(key, Scalar):
            errors.append(ConfigError(name, key.line, "a key is a list or a mapping; a key is one word"))
        elif key.text in entries:
            first = entries[key.text][0].line
            errors.append(
                ConfigError(
                    name, key.line, f"duplicate key {quoted(key.text)}, first on line {first}; one is allowed"
                )
            )
        else:
            entries[key.text] = (key, _convert(value_node, name, errors))
    return Section(tuple(entries.values()), line)
