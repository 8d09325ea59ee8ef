"""`imds-proxy policy test FILE`: expectations in YAML beside the policy, for the users' own CI."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, TextIO, get_args

from imds_proxy.advice.explain import caller_of, explain
from imds_proxy.config_document import ConfigError, ConfigErrors, read_document
from imds_proxy.config_file import FileRefused, read_text
from imds_proxy.config_reader import SectionReader, key, rows
from imds_proxy.config_rules import Pattern
from imds_proxy.config_values import Word, printable
from imds_proxy.policy.decision import Policy
from imds_proxy.protocol.session import Session

Outcome = Literal["allowed", "would-refuse", "refused"]
_SESSIONS = tuple(session.value for session in Session if session is not Session.TOKEN)


def _fact(doc: str) -> str | None:
    value: str | None = field(default=None, metadata=key(Pattern(), doc))
    return value


@dataclass(frozen=True, slots=True)
class CallerFacts:
    """A caller as an expectation describes it; what is left out is absent."""

    exe: str | None = _fact("Executable.")
    sha256: str | None = _fact("SHA-256 of it.")
    script: str | None = _fact("Script.")
    user: str | None = _fact("User name.")
    group: str | None = _fact("One of its groups.")
    uid: str | None = _fact("Uid.")
    unit: str | None = _fact("Unit.")
    container: str | None = _fact("Container id.")
    parent: str | None = _fact("Executable of an ancestor.")


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation."""

    name: str = field(default="", metadata=key(Pattern(), "What is expected, in words."))
    caller: CallerFacts = CallerFacts()
    path: str = field(default="", metadata=key(Pattern(), "An item, with its version or without."))
    session: str = field(default="legacy", metadata=key(Word(_SESSIONS), "Kind of session."))
    outcome: Outcome = field(
        default="allowed", metadata=key(Word(get_args(Outcome)), "What must come of it.")
    )
    rule: str | None = _fact("The rule that must decide.")


@dataclass(frozen=True, slots=True)
class Expectations:
    """The whole file."""

    expect: tuple[Expectation, ...] = field(default=(), metadata=rows(Expectation(), "Expectations."))


def read(path: Path) -> tuple[Expectation, ...]:
    """The expectations in a file. Raises ConfigErrors."""
    name = printable(str(path))
    try:
        text = read_text(path, check_owner=False)
    except FileRefused as refused:
        raise ConfigErrors((ConfigError(name, 0, printable(str(refused))),)) from None
    root, errors = read_document(text, name)
    reader = SectionReader(name, Expectations(), list(errors))
    found: Expectations = Expectations() if root is None else reader.read(root)
    for number, one in enumerate(found.expect, 1):
        place = f"expect[{number}]"
        if not one.path and f"{place}.path" not in reader.failed:
            reader.errors.append(ConfigError(name, reader.lines.get(place, 0), f"{place} has no path"))
    if not found.expect and not reader.errors:
        reader.errors.append(ConfigError(name, 0, "nothing is expected; write a list under 'expect'"))
    if reader.errors:
        raise ConfigErrors(tuple(sorted(reader.errors, key=lambda error: error.line)))
    return found.expect


def run(policy: Policy, path: Path, out: TextIO, err: TextIO) -> int:
    """0 when every expectation is met, 1 when one is not, 78 when the file is refused."""
    try:
        expectations = read(path)
    except ConfigErrors as refused:
        for error in refused.errors:
            err.write(f"{error}\n")
        return os.EX_CONFIG
    failed = 0
    for number, one in enumerate(expectations, 1):
        problem = _problem(policy, one)
        failed += problem is not None
        title = printable(one.name or f"{one.path} ({one.session})")
        out.write(f"{'not ok' if problem else 'ok'} {number} - {title}{f': {problem}' if problem else ''}\n")
    out.write(f"{len(expectations) - failed} of {len(expectations)} expectations are met\n")
    return 1 if failed else 0


def _problem(policy: Policy, one: Expectation) -> str | None:
    facts = {item.name: getattr(one.caller, item.name) for item in fields(one.caller)}
    try:
        found = explain(policy, caller_of(facts), one.path, Session(one.session))
    except ValueError as error:
        return str(error)
    rule = found.decision.rule.name if found.decision.rule else None
    reason = found.decision.refusal or found.decision.would_refuse
    if found.outcome != one.outcome:
        return f"it is {found.outcome}" + (
            f" ({reason.slug}), by rule {rule}" if reason else f", by rule {rule}"
        )
    if one.rule is not None and rule != one.rule:
        return f"rule {rule} decides"
    return None
