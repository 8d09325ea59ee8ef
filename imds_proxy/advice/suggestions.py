"""`imds-proxy policy suggest`: an allowlist in YAML from the daemon's ledgers or logs.

Reads what they say of callers; the rules themselves are made in `policy.suggest`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TextIO

import yaml

from imds_proxy.config_values import printable
from imds_proxy.ledger.schema import NotALedger, open_to_read
from imds_proxy.ledger.sources import is_ledger, opened_log
from imds_proxy.policy.decision import Policy
from imds_proxy.policy.suggest import Observation, Seen, Suggestion, suggest

_EVENTS = frozenset({"caller-summary", "legacy-caller", "fallback-caller"})


def observe(lines: Iterable[str], roots: frozenset[str]) -> dict[Seen, Observation]:
    """Callers and what they read, from log lines; lines that are not the daemon's are passed over."""
    found: dict[Seen, Observation] = {}
    for record in _records(lines):
        who = Seen(
            exe=_text(record, "exe"),
            script=_text(record, "script"),
            user=_text(record, "user"),
            uid=record["uid"] if isinstance(record.get("uid"), int) else None,
            unit=_text(record, "unit"),
            container=_text(record, "container"),
        )
        what = found.setdefault(who, Observation())
        sessions = record.get("sessions")
        for kind, count in sessions.items() if isinstance(sessions, dict) else ():
            if isinstance(kind, str) and isinstance(count, int):
                what.sessions[kind] = what.sessions.get(kind, 0) + count
        items = record.get("items")
        for path in items if isinstance(items, list) else (record.get("path"),):
            if isinstance(path, str) and record.get("session") != "token":
                what.items.add(_below_version(path, roots))
    return found


def observe_ledger(ledger: sqlite3.Connection, roots: frozenset[str]) -> dict[Seen, Observation]:
    """Callers and what they read, from an open ledger. Raises sqlite3.Error."""
    found: dict[int, tuple[Seen, Observation]] = {}
    for number, *facts in ledger.execute("SELECT id, exe, script, user, uid, unit, container FROM callers"):
        found[number] = Seen(*facts), Observation()
    for number, kind, count in ledger.execute("SELECT caller, session, count FROM sessions"):
        found[number][1].sessions[kind] = count
    for number, path in ledger.execute("SELECT caller, path FROM items"):
        found[number][1].items.add(_below_version(path, roots))
    return dict(found.values())


def render(suggestions: Iterable[Suggestion], left_out: int) -> str:
    """The policy section that allows these and nothing else, commented."""
    lines = [
        "# Suggested by `imds-proxy policy suggest`: what was seen, and nothing else. Read each rule, then",
        "# load it with enforcement: audit for a while: its log says what would be refused.",
    ]
    if left_out:
        lines.append(
            f"# {left_out} caller(s) of whom nothing is known have no rule: nothing could name them."
        )
    lines += ["policy:", "  enforcement: enforce", "  default: deny", "  rules:"]
    empty = True
    for one in suggestions:
        empty = False
        seen = ", ".join(f"{kind} {count}" for kind, count in one.sessions) or "once"
        caller: dict[str, Any] = dict(one.caller)
        if one.container:
            caller["container"] = {"id": one.container}
        lines += [
            f"    # seen: {seen}"
            + ("; a container's id changes when it is made anew" if one.container else ""),
            f"    - name: {_flow(one.name)}",
            f"      caller: {_flow(caller)}",
            "      paths:",
            *(f"        - {_flow(path)}" for path in one.paths),
        ]
    if empty:
        lines[-1] = "  rules: []  # no caller was seen"
    return "\n".join(lines) + "\n"


def run(files: Iterable[Path], policy: Policy, out: TextIO, err: TextIO) -> int:
    """0, or 1 when a file cannot be read."""
    found: dict[Seen, Observation] = {}
    for path in files:
        try:
            seen = _observed(path, policy.roots)
        except (OSError, EOFError, sqlite3.Error, NotALedger) as error:
            why = getattr(error, "strerror", None) or str(error)
            err.write(f"imds-proxy policy suggest: {printable(str(path))}: {printable(why)}\n")
            return 1
        for who, what in seen.items():
            known = found.setdefault(who, Observation())
            known.items |= what.items
            for kind, count in what.sessions.items():
                known.sessions[kind] = known.sessions.get(kind, 0) + count
    unknown = sum(who.user is None and who.uid is None for who in found)
    out.write(render(suggest(found.items(), policy.sensitive), unknown))
    return 0


def _observed(path: Path, roots: frozenset[str]) -> dict[Seen, Observation]:
    if not is_ledger(path):
        with opened_log(path) as lines:
            return observe(lines, roots)
    with closing(open_to_read(path)) as ledger:
        return observe_ledger(ledger, roots)


def _records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("event") in _EVENTS:
            yield record


def _text(record: dict[str, Any], name: str) -> str | None:
    value = record.get(name)
    return value if isinstance(value, str) else None


def _below_version(path: str, roots: frozenset[str]) -> tuple[str, ...]:
    segments = tuple(part.lower() for part in path.split("/") if part)
    return segments[1:] if segments and segments[0] not in roots else segments


def _flow(value: object) -> str:
    text: str = yaml.safe_dump(
        value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("...").rstrip()
