"""JSON logs of the daemon as callers and counts, a line at a time.

Invents nothing: a line that is not the daemon's is passed over and counted, an absent fact stays absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from imds_proxy.ledger.entries import StableCaller

_TEXTS = ("exe", "script", "user", "unit", "container", "origin", "cmdline")
_ANNOUNCED = frozenset({"legacy-caller", "fallback-caller"})
_MAX_CALLERS = 20_000  # of one log in memory; then they are handed on
_MAX_ITEMS = 1024


@dataclass(slots=True)
class LoggedCaller:
    """One caller of one log. Times are Unix seconds, None where lines have none."""

    who: StableCaller
    sessions: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    first: float | None = None
    last: float | None = None
    items: set[str] = field(default_factory=set)
    cause: str | None = None
    client: dict[str, str | None] | None = None
    advice: str | None = None
    fix: str | None = None
    credentials: bool | None = None


class LogReader:
    """Reads one log. `hosts` are the machines that it names, `skipped` counts lines that are not ours.

    `since`: lines before (Unix seconds) do not count.
    """

    def __init__(self, since: float | None = None) -> None:
        self._since = since
        self.hosts: set[str] = set()
        self.skipped = 0

    def read(self, lines: Iterable[str]) -> Iterator[LoggedCaller]:
        """The callers. Counts come from summaries; one that was announced and never summarised (the daemon
        was killed) counts once."""
        callers: dict[bytes, LoggedCaller] = {}
        announced: dict[bytes, dict[str, Any]] = {}
        for record in self._records(lines):
            event, when = record["event"], _time(record.get("time"))
            if event == "ready" and isinstance(record.get("host"), str):
                self.hosts.add(record["host"])
            if self._since is not None and (when is None or when < self._since):
                continue
            if event == "caller-summary":
                caller = _caller(callers, record, when)
                announced.pop(caller.who.key, None)
                _count(caller, record.get("sessions"), record.get("refused"), record.get("items"))
            elif event in _ANNOUNCED:
                caller = _caller(callers, record, when)
                announced[caller.who.key] = record
                if isinstance(record.get("cause"), str):
                    caller.cause = record["cause"]
            elif event == "client":
                _describe(_caller(callers, record, when), record)
            if len(callers) >= _MAX_CALLERS:
                yield from callers.values()
                callers.clear()
        for record in announced.values():
            caller = _caller(callers, record, None)
            _count(caller, {str(record.get("session")): 1}, None, [record.get("path")])
        yield from callers.values()

    def _records(self, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict) and isinstance(record.get("event"), str):
                yield record
            elif line.strip():
                self.skipped += 1


def _caller(callers: dict[bytes, LoggedCaller], record: dict[str, Any], when: float | None) -> LoggedCaller:
    texts = {name: value for name in _TEXTS if isinstance(value := record.get(name), str)}
    uid = record.get("uid")
    who = StableCaller(uid=uid if isinstance(uid, int) and abs(uid) < 2**62 else None, **texts)
    caller = callers.setdefault(who.key, LoggedCaller(who))
    if when is not None:
        caller.first = when if caller.first is None else min(caller.first, when)
        caller.last = when if caller.last is None else max(caller.last, when)
    return caller


def _describe(caller: LoggedCaller, record: dict[str, Any]) -> None:
    """Takes the latest that was found out of the caller's client."""
    client, credentials = record.get("client"), record.get("credentials")
    if isinstance(client, dict):
        caller.client = {name: _text(client.get(name)) for name in ("name", "version", "where")}
    caller.advice, caller.fix = _text(record.get("advice")), _text(record.get("fix"))
    caller.credentials = credentials if isinstance(credentials, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(caller: LoggedCaller, sessions: object, refused: object, items: object) -> None:
    for kind, count in sessions.items() if isinstance(sessions, dict) else ():
        if isinstance(count, int) and 0 <= count < 2**40:
            caller.sessions[kind] = caller.sessions.get(kind, 0) + count
    if isinstance(refused, int) and 0 <= refused < 2**40:
        caller.refused += refused
    for item in items if isinstance(items, list) else ():
        if isinstance(item, str) and len(caller.items) < _MAX_ITEMS:
            caller.items.add(item)


def _time(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None
