"""What is in force, as JSON values (schema 1), as text for a person, and as an exit code. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["in-force", "lapsed", "refusing", "off", "unknown"]
SENTENCES: dict[str, str] = {
    "in-force": "in force: calls to the metadata service come to the proxy",
    "lapsed": "lapsed: calls go to the metadata service itself until the daemon renews it",
    "refusing": "refusing: nobody serves, and on_failure is closed: calls are refused",
    "off": "off: calls go to the metadata service itself",
    "unknown": "unknown: the kernel does not tell",
}
"""What each state means, in a sentence."""
_SHOWN = 20  # connections in a text


@dataclass(frozen=True, slots=True)
class Report:
    """`daemon`: a running daemon has said this. `passing` are connections that go past the redirect."""

    state: State
    daemon: bool
    on_failure: str
    method: str | None = None
    held_by: str | None = None
    name: str | None = None
    services: Sequence[str] = ()
    listeners: Sequence[str] = ()
    forwarded: Sequence[str] = ()
    notes: Sequence[str] = ()
    passing: Sequence[dict[str, Any]] = ()

    def as_json(self) -> dict[str, Any]:
        """JSON values, to be read by `read`."""
        return {"schema": 1, **asdict(self)}


def read(answer: dict[str, Any]) -> Report:
    """The report in a daemon's answer. Raises ValueError."""
    try:
        return Report(**{name: answer[name] for name in Report.__dataclass_fields__})
    except KeyError as missing:
        raise ValueError(f"not a report: {missing} is missing") from None


def exit_code(report: Report) -> int:
    """0: redirected, 1: not, 3: unknown."""
    return {"in-force": 0, "unknown": 3}.get(report.state, 1)


def as_text(report: Report) -> str:
    """Some lines for a person."""
    lines = [SENTENCES[report.state]]
    if report.method is not None:
        held = {
            "owner-table": "removed by the kernel when the daemon dies",
            "table": "stays without the daemon",
        }
        why = held.get(report.held_by or "", "lapses 2 s after the daemon's last sign of life")
        lines.append(f"method: {report.method} ({report.name}; {why})")
    if report.listeners:
        lines.append(f"from {', '.join(report.services)} to {', '.join(report.listeners)}")
    lines.append("forwarded traffic: " + (", ".join(report.forwarded) or "not redirected"))
    lines.append(f"when the daemon dies: {report.on_failure}")
    if not report.daemon:
        lines.append("no daemon answers")
    lines += [f"note: {note}" for note in report.notes]
    for one in report.passing[:_SHOWN]:
        who = f"{one['exe']} (pid {one['pid']})" if one["pid"] is not None else "an unknown process"
        lines.append(f"goes past it: {one['local']} to {one['remote']}, {who}, uid {one['uid']}")
    if len(report.passing) > _SHOWN:
        lines.append(f"goes past it: {len(report.passing) - _SHOWN} more")
    if report.passing and report.state == "in-force":
        lines.append("close these with: imds-proxy intercept up --takeover")
    return "\n".join(lines) + "\n"
