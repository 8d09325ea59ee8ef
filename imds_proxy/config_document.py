"""YAML text to a small tree with line numbers, refusing what a configuration does not need.

Knows no key and no kind of value: anchors, aliases, tags, depth and duplicates are all it judges.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Any

import yaml

from imds_proxy.config_values import printable, quoted

MOST_ERRORS = 100
"""What is told of one file: more are no help, and a file of another kind has one on each line."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER: Any = yaml.resolver.Resolver()
_DEEPEST = 8
_MOST_EVENTS = 500_000  # 10,000 rules of every key there is
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


def refusal(errors: Sequence[ConfigError]) -> ConfigErrors:
    """What to raise for errors, of which there is one at least: they in the order of their lines, as many as
    are told."""
    told = sorted(errors, key=lambda error: error.line)
    if len(told) > MOST_ERRORS:
        last = told[MOST_ERRORS - 1]
        told[MOST_ERRORS:] = [
            ConfigError(last.file, last.line, f"more errors follow; {MOST_ERRORS} are told")
        ]
    return ConfigErrors(tuple(told))


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
    builder = _Builder(name)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if not builder.take(event):
                break
    except yaml.YAMLError as error:
        raise ConfigErrors((_syntax_error(error, text, name),)) from None
    if builder.refused:
        raise refusal(builder.refused)
    return builder.root, tuple(builder.errors)


def _refuse_characters(text: str, name: str) -> None:
    body = text.removeprefix("\ufeff")
    match = _REFUSED_CHARACTER.search(body)
    if match:
        line = body.count("\n", 0, match.start()) + 1
        message = f"control character U+{ord(match[0]):04X}; only printable text is allowed"
        raise ConfigErrors((ConfigError(name, line, message),))


class _Builder:
    """Makes the tree of the parser's events as they come, so that nothing grows from what is refused.

    `refused` are errors after which there is no tree, `errors` those that leave one.
    """

    def __init__(self, name: str) -> None:
        self.root: Node | None = None
        self.refused: list[ConfigError] = []
        self.errors: list[ConfigError] = []
        self._name = name
        self._events = self._documents = 0
        self._open: list[_Open] = []

    def take(self, event: Any) -> bool:
        """The next event; False where nothing beyond it is to be read."""
        line: int = event.start_mark.line + 1
        self._events += 1
        if self._events > _MOST_EVENTS:
            return self._refuse(line, f"more than {_MOST_EVENTS} YAML events; a file is small", last=True)
        if isinstance(event, yaml.NodeEvent):
            return self._node(event, line)
        if isinstance(event, yaml.CollectionEndEvent):
            return self._add(self._open.pop().close())
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                return self._refuse(line, "a second document begins here; one is allowed", last=True)
        return True

    def _node(self, event: Any, line: int) -> bool:
        if isinstance(event, yaml.AliasEvent):
            return self._refuse(line, f"alias *{event.anchor}; write the value out instead")
        if event.anchor:
            self._refuse(line, f"anchor &{event.anchor}; write the value out instead")
        if event.tag:
            self._refuse(line, f"tag {quoted(event.tag)}; tags are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            return self._add(Scalar(event.value, _tag_of(event), line))
        if len(self._open) == _DEEPEST:
            return self._refuse(line, f"nested more than {_DEEPEST} deep", last=True)
        mapping = isinstance(event, yaml.MappingStartEvent)
        self._open.append(_OpenSection(line, self._error) if mapping else _OpenItems(line))
        return True

    def _add(self, node: Node) -> bool:
        if self._open:
            self._open[-1].add(node)
        else:
            self.root = node
        return True

    def _error(self, line: int, message: str) -> None:
        if len(self.errors) <= MOST_ERRORS:
            self.errors.append(ConfigError(self._name, line, message))

    def _refuse(self, line: int, message: str, last: bool = False) -> bool:
        """Whether there may be more to say."""
        self.refused.append(ConfigError(self._name, line, message))
        return not last and len(self.refused) <= MOST_ERRORS


class _OpenItems:
    """A list whose end has not come yet."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._items: list[Node] = []

    def add(self, node: Node) -> None:
        """The next item."""
        self._items.append(node)

    def close(self) -> Items:
        """The whole."""
        return Items(tuple(self._items), self._line)


class _OpenSection:
    """A mapping whose end has not come yet. `told` is called with a line and what is wrong there."""

    def __init__(self, line: int, told: Callable[[int, str], None]) -> None:
        self._line, self._told = line, told
        self._key: Node | None = None
        self._entries: dict[str, tuple[Scalar, Node]] = {}

    def add(self, node: Node) -> None:
        """The next key, or the value of the last one."""
        key, self._key = self._key, node if self._key is None else None
        if key is None:
            return
        if not isinstance(key, Scalar):
            self._told(key.line, "a key is a list or a mapping; a key is one word")
        elif key.text in self._entries:
            first = self._entries[key.text][0].line
            self._told(key.line, f"duplicate key {quoted(key.text)}, first on line {first}; one is allowed")
        else:
            self._entries[key.text] = (key, node)

    def close(self) -> Section:
        """The whole."""
        return Section(tuple(self._entries.values()), self._line)


_Open = _OpenItems | _OpenSection


def _tag_of(event: Any) -> str:
    """What YAML takes a scalar for; what is quoted is always a text."""
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit) if event.implicit[0] else "str"
    return intern(tag.rpartition(":")[2])  # of a large file there are some 100,000


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
