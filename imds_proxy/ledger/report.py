"""Who still needs a change: JSON logs of the daemon, merged into one table or one JSON object.

Reads lines, one at a time; knows no socket and invents nothing: an absent fact is null.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

_KINDS = ("legacy", "fallback", "hardened")
_IDENTITY = ("exe", "script", "user", "unit", "container")
_MAX_ITEMS = 64
_ADVICE = {
    "legacy": "speaks normal mode only: fetch a token first (PUT /latest/api/token) or upgrade its SDK",
    "fallback": "needs no code change: it speaks hardened mode, and its call with a token had failed",
}


@dataclass(slots=True)
class CallerRow:
    """One caller by its stable identity, over all logs."""

    identity: tuple[str | None, ...]
    sessions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    refused: int = 0
    first_seen: str = ""
    last_seen: str = ""
    items: set[str] = field(default_factory=set)

    @property
    def advice(self) -> str | None:
        """What is to be done; None for a caller that needs nothing."""
        return next((text for kind, text in _ADVICE.items() if self.sessions[kind]), None)

    def as_json(self) -> dict[str, Any]:
        """The caller in the machine contract's form."""
        return {
            **dict(zip(_IDENTITY, self.identity, strict=True)),
            "pod": None,
            "hosts": None,
            "sessions": dict(self.sessions),
            "refused": self.refused,
            "first_seen": self.first_seen or None,
            "last_seen": self.last_seen or None,
            "items": sorted(self.items),
            "client": {"name": None, "version": None, "where": None},
            "advice": self.advice,
        }


@dataclass(slots=True)
class Report:
    """Callers, the time that the logs span, and how many lines were not the daemon's."""

    rows: dict[tuple[str | None, ...], CallerRow] = field(default_factory=dict)
    first: str = ""
    last: str = ""
    skipped: int = 0

    def read(self, lines: Iterable[str]) -> None:
        """Takes the lines of one log. Counts come from summaries; a caller that was announced and never
        summarised (the daemon was killed) counts once."""
        announced: dict[tuple[str | None, ...], dict[str, Any]] = {}
        for record in self._records(lines):
            time, event = str(record.get("time", "")), record.get("event")
            self.first = min(self.first or time, time)
            self.last = max(self.last, time)
            if event == "caller-summary":
                announced.pop(_identity(record), None)
                self._add(record, record.get("sessions"))
            elif event in ("legacy-caller", "fallback-caller"):
                announced[_identity(record)] = record
                self._row(record)
        for record in announced.values():
            self._add({**record, "items": [record.get("path")]}, {str(record.get("session")): 1})

    def needing_change(self) -> list[CallerRow]:
        """Callers that were seen in normal mode, the busiest first."""
        rows = [row for row in self.rows.values() if row.advice]
        return sorted(
            rows, key=lambda row: (-row.sessions["legacy"], -row.sessions["fallback"], str(row.identity))
        )

    def as_json(self) -> dict[str, Any]:
        """The machine contract. One log cannot tell whether it saw everything, so the verdict is NOT READY
        when a caller is in the way and UNKNOWN otherwise."""
        return {
            "schema": 1,
            "window": {"from": self.first or None, "to": self.last or None, "gaps": []},
            "verdict": "NOT READY" if self.needing_change() else "UNKNOWN",
            "callers": [row.as_json() for row in self.rows.values()],
        }

    def _records(self, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict) and isinstance(record.get("event"), str):
                yield record
            elif line.strip():
                self.skipped += 1

    def _row(self, record: dict[str, Any]) -> CallerRow:
        identity = _identity(record)
        row = self.rows.setdefault(identity, CallerRow(identity))
        time = str(record.get("time", ""))
        row.first_seen = min(row.first_seen or time, time)
        row.last_seen = max(row.last_seen, time)
        return row

    def _add(self, record: dict[str, Any], sessions: object) -> None:
        row = self._row(record)
        for kind, count in sessions.items() if isinstance(sessions, dict) else ():
            if kind in row.sessions and isinstance(count, int):
                row.sessions[kind] += count
        refused = record.get("refused")
        row.refused += refused if isinstance(refused, int) else 0
        for item in record.get("items") or ():
            if len(row.items) < _MAX_ITEMS and isinstance(item, str):
                row.items.add(item)


def render_table(report: Report) -> str:
    """The callers that need a change, for a terminal; control characters are escaped."""
    rows = report.needing_change()
    if not rows:
        return "No caller was seen in normal mode.\n"
    table: list[tuple[str, ...]] = [("caller", "user", "legacy", "fallback", "items")]
    table += [
        (
            _shown(_name(row)),
            _shown(row.identity[2] or "-"),
            str(row.sessions["legacy"]),
            str(row.sessions["fallback"]),
            str(len(row.items)),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    table.insert(1, tuple("-" * width for width in widths))
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
    lines.append("")
    lines += [f"{kind}: {text}" for kind, text in _ADVICE.items() if any(row.sessions[kind] for row in rows)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def run(files: Iterable[Path], as_json: bool, out: TextIO, err: TextIO) -> int:
    """`imds-proxy report`: 0, or 1 when a file cannot be read."""
    report = Report()
    for path in files:
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                report.read(lines)
        except OSError as error:
            err.write(f"imds-proxy report: {_shown(str(path))}: {error.strerror}\n")
            return 1
    if report.skipped:
        err.write(f"imds-proxy report: passed over {report.skipped} lines that are not the daemon's JSON\n")
    out.write(json.dumps(report.as_json(), indent=2) + "\n" if as_json else render_table(report))
    return 0


def _identity(record: dict[str, Any]) -> tuple[str | None, ...]:
    values = (record.get(name) for name in _IDENTITY)
    return tuple(value if isinstance(value, str) else None for value in values)


def _name(row: CallerRow) -> str:
    exe, script, _, unit, container = row.identity
    what = script or exe or "(not found)"
    where = container or unit
    return f"{what} ({where})" if where else what


def _shown(text: str) -> str:
    return "".join(
        c if c.isprintable() and c.isascii() else c.encode("unicode_escape").decode() for c in text
    )
