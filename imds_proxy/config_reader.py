"""A tree to a frozen dataclass whose fields carry their kind and documentation, collecting every error.

Knows no key by name: `config` says which there are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from imds_proxy.config_document import MOST_ERRORS, ConfigError, Items, Node, Scalar, Section, refusal
from imds_proxy.config_values import Address, Kind, printable, quoted


def key(
    kind: Kind, doc: str, *, many: bool = False, least: int = 0, single: bool = False
) -> dict[str, object]:
    """The metadata of a field that is one key: `many` for a list of at least `least` values, `single` if
    one value may stand without its brackets."""
    return {"kind": kind, "doc": doc, "many": many, "least": least, "single": single}


def rows(default: Any, doc: str) -> dict[str, object]:
    """The metadata of a field that is a list of sections, each read over `default`."""
    return {"rows": default, "doc": doc}


@dataclass(frozen=True, slots=True)
class KeyDoc:
    """One key's documentation: its dotted name, what may be written, its default as written, a sentence."""

    key: str
    allowed: str
    default: str
    doc: str


def describe_section(default: Any) -> tuple[KeyDoc, ...]:
    """Every key of a section and of those in it, in the order of their fields."""
    return tuple(_describe(default, ""))


def _describe(part: Any, prefix: str) -> Iterator[KeyDoc]:
    for item in fields(part):
        value, name = getattr(part, item.name), prefix + item.name
        if not item.metadata:
            yield from _describe(value, name + ".")
            continue
        if "rows" in item.metadata:
            keys = ", ".join(row.name for row in fields(item.metadata["rows"]))
            yield KeyDoc(name, f"a list of mappings: {keys}", "[]", item.metadata["doc"])
            continue
        kind: Kind = item.metadata["kind"]
        if item.metadata["many"]:
            shown = f"[{', '.join(kind.show(one) for one in value)}]"
            yield KeyDoc(name, f"a list, each {kind.allowed}", shown, item.metadata["doc"])
        else:
            yield KeyDoc(name, kind.allowed, kind.show(value), item.metadata["doc"])


class SectionReader:
    """Goes once through a tree, collecting errors; a value in error leaves its default in place."""

    def __init__(self, name: str, default: Any, errors: list[ConfigError]) -> None:
        self.name = name
        self.default = default
        self.errors = errors
        self.lines: dict[str, int] = {}
        self.failed: set[str] = set()

    def read(self, node: Node) -> Any:
        """The whole configuration; `errors`, `failed` (keys) and `lines` (key to line) say the rest. Raises
        ConfigErrors where there are too many to go on."""
        return self._section(node, self.default, "")

    def _section(self, node: Node, default: Any, prefix: str) -> Any:
        title = quoted(prefix.rstrip(".")) if prefix else "a configuration"
        if isinstance(node, Scalar) and node.tag == "null":  # all its keys are commented out
            return default
        if isinstance(node, Scalar) and (switched := _switched(default, node.text)) is not None:
            return switched
        if not isinstance(node, Section):
            self._error(node.line, prefix, f"{title} is a mapping of keys to values")
            return default
        known = {item.name: item for item in fields(default)}
        values: dict[str, Any] = {}
        for key, value in node.entries:
            item = known.get(key.text)
            if item is None:
                self._error(key.line, prefix + key.text, self._unknown(key.text, prefix, tuple(known)))
                continue
            name = prefix + key.text
            self.lines[name] = key.line
            before = getattr(default, key.text)
            if not item.metadata:
                values[key.text] = self._section(value, before, name + ".")
            elif "rows" in item.metadata:
                values[key.text] = self._rows(value, item.metadata["rows"], name)
            elif item.metadata["many"]:
                if item.metadata["single"] and isinstance(value, Scalar):
                    value = Items((value,), value.line)
                values[key.text] = self._list(
                    value, before, name, item.metadata["kind"], item.metadata["least"]
                )
            else:
                values[key.text] = self._value(value, before, name, item.metadata["kind"])
        return replace(default, **values)

    def _rows(self, node: Node, default: Any, name: str) -> object:
        if not isinstance(node, Items):
            self._error(node.line, name, f"{quoted(name)} is a list of mappings, each begun by a dash")
            return ()
        for number, item in enumerate(node.items, 1):
            self.lines[f"{name}[{number}]"] = item.line
        return tuple(
            self._section(item, default, f"{name}[{number}].") for number, item in enumerate(node.items, 1)
        )

    def _list(self, node: Node, default: object, name: str, kind: Kind, least: int) -> object:
        if not isinstance(node, Items):
            self._error(node.line, name, f"{quoted(name)} is a list: [...], each {kind.allowed}")
            return default
        if len(node.items) < least:
            self._error(
                node.line, name, f"{quoted(name)} is empty; at least {least} is needed: {kind.allowed}"
            )
            return default
        values: list[object] = []
        seen: set[object] = set()  # a list may be long
        for item in node.items:
            value = self._value(item, None, name, kind)
            # Port 0 twice is two ports.
            if value is not None and value in seen and not (isinstance(value, Address) and value.port == 0):
                shown = printable(kind.show(value))
                self._error(item.line, name, f"{name}: {shown} stands here twice; once is allowed")
            values.append(value)
            seen.add(value)
        return default if name in self.failed else tuple(values)

    def _value(self, node: Node, default: object, name: str, kind: Kind) -> object:
        if not isinstance(node, Scalar):
            self._error(node.line, name, f"{quoted(name)} is one value; allowed is {kind.allowed}")
        elif node.tag == "null" or not node.text:
            self._error(node.line, name, f"{quoted(name)} has no value; allowed is {kind.allowed}")
        elif not node.text.isprintable():
            self._error(
                node.line, name, f"{name}: {quoted(node.text)} has a control character; none is allowed"
            )
        else:
            try:
                return kind.read(node.text, node.tag)
            except ValueError as error:
                self._error(node.line, name, f"{name}: {error}")
        return default

    def _error(self, line: int, key: str, message: str) -> None:
        self.failed.add(key)
        self.errors.append(ConfigError(self.name, line, message))
        if len(self.errors) > MOST_ERRORS:
            raise refusal(self.errors)

    def _unknown(self, key: str, prefix: str, known: tuple[str, ...]) -> str:
        """Names the nearest key of this section, or the place where a key of that name belongs."""
        near = sorted(difflib.get_close_matches(key, known), key=lambda one: one[0] != key[0])  # stable
        elsewhere = [doc.key for doc in describe_section(self.default) if doc.key.rpartition(".")[2] == key]
        if elsewhere:
            hint = f"did you mean {quoted(elsewhere[0])}? "
        elif near:
            hint = f"did you mean {quoted(near[0])}? "
        else:
            hint = ""
        where = f" in {quoted(prefix.rstrip('.'))}" if prefix else ""
        return f"unknown key {quoted(key)}{where}; {hint}allowed is {', '.join(known)}"


def _switched(default: Any, text: str) -> Any:
    """A section that has `enabled`, for the one word that may stand in its place; None for another word."""
    switches = {"off": False, "false": False, "on": True, "true": True}
    if text not in switches or all(item.name != "enabled" for item in fields(default)):
        return None
    return replace(default, enabled=switches[text])
