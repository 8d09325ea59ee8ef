"""The merged callers as a table, JSON, CSV or a page. Text of callers is made inert for each.

Knows no ledger and no file; invents nothing: an absent fact is null.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from itertools import islice
from typing import Any, TextIO

from imds_proxy.ledger.merging import Fix, Merge, MergedCaller
from imds_proxy.ledger.reading import name_of

_MOST_ROWS = 200
_WITHOUT_FIX = "speaks normal mode: fetch a token first (PUT /latest/api/token), or upgrade its SDK"
_FALLBACK = "needs no code change: its call with a token failed"
_BYPASS = "reaches the service past the proxy: what it speaks is not known"
_HEADINGS = ("caller", "user", "hosts", "last seen", "calls", "items", "what to change")
_COLUMNS = ("exe", "script", "user", "unit", "container", "pod", "hosts")


def advice_for(caller: MergedCaller) -> str | None:
    """What is to be done; None for a caller that needs nothing."""
    sessions = caller.sessions
    if sessions["legacy"]:
        return caller.advice or _WITHOUT_FIX
    if sessions["fallback"]:
        return _fallback(caller.cause) if caller.advice is None else caller.advice
    return _BYPASS if sessions["bypass"] else caller.advice


def _fallback(cause: str | None) -> str:
    if not cause:
        return _FALLBACK
    session, _, code = cause.rpartition(":")
    call = {"token": "token PUT", "hardened": "GET with a token"}.get(session, "call with a token")
    return f"needs no code change: its {call} failed because of {code}"


def caller_as_json(caller: MergedCaller) -> dict[str, Any]:
    """One caller in the machine contract's form."""
    return {
        "exe": caller.exe,
        "script": caller.script,
        "user": caller.user,
        "unit": caller.unit,
        "container": caller.container,
        "pod": caller.pod,
        "hosts": caller.hosts,
        "sessions": {kind: caller.sessions[kind] for kind in ("legacy", "fallback", "hardened")},
        "refused": caller.refused,
        "first_seen": iso(caller.first_seen),
        "last_seen": iso(caller.last_seen),
        "items": list(caller.items),
        "client": caller.client._asdict(),
        "credentials": caller.credentials,
        "advice": advice_for(caller),
    }


def head_as_json(merge: Merge) -> dict[str, Any]:
    """The machine contract but for its callers."""
    gaps = [
        {"from": iso(gap.begin), "to": iso(gap.end), "host": gap.host, "reason": gap.reason}
        for gap in merge.gaps
    ]
    window = {"from": iso(merge.since if merge.since is not None else merge.begin), "to": iso(merge.end)}
    return {"schema": 1, "window": {**window, "gaps": gaps}, "verdict": merge.verdict.value}


def as_json(merge: Merge) -> dict[str, Any]:
    """The machine contract as a whole, for as many callers as fit into memory."""
    return {**head_as_json(merge), "callers": [caller_as_json(caller) for caller in merge.callers()]}


def write_json(merge: Merge, out: TextIO) -> None:
    """The machine contract, one caller after the other."""
    head = json.dumps(head_as_json(merge), indent=2)
    out.write(head.removesuffix("\n}") + ',\n  "callers": [')
    encode = json.JSONEncoder(check_circular=False).encode
    for number, caller in enumerate(merge.callers()):
        out.write(f"{',' if number else ''}\n    {encode(caller_as_json(caller))}")
    out.write("\n  ]\n}\n")


def write_csv(merge: Merge, out: TextIO) -> None:
    """A line for each caller. What a spreadsheet would take for a formula begins with an apostrophe."""
    writer = csv.writer(out)
    kinds = ("legacy", "fallback", "hardened")
    client = ("client", "client_version", "client_where")
    tail = ("refused", "first_seen", "last_seen", "items", *client, "advice")
    writer.writerow((*_COLUMNS, *kinds, *tail))
    for caller in merge.callers():
        found = caller_as_json(caller)
        row = [*(found[name] for name in _COLUMNS), *(found["sessions"][kind] for kind in kinds)]
        row += [found[name] for name in ("refused", "first_seen", "last_seen")]
        row += [" ".join(found["items"]), *found["client"].values(), found["advice"]]
        writer.writerow([_cell(value) for value in row])


def render_table(merge: Merge) -> str:
    """The callers that need a change, for a terminal; control characters are escaped."""
    rows = list(islice(merge.callers(needing_change=True), _MOST_ROWS + 1))
    if not rows:
        return "No caller was seen in normal mode.\n"
    readers = [_row(caller) for caller in rows[:_MOST_ROWS] if caller.credentials is not False]
    probes = [_row(caller) for caller in rows[:_MOST_ROWS] if caller.credentials is False]
    table = [_HEADINGS, *readers, *probes]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEADINGS))]
    widths[-1] = len(_HEADINGS[-1])  # the last column may be as long as it is
    lines = [_line(_HEADINGS, widths), _line(["-" * width for width in widths], widths)]
    lines += [_line(row, widths) for row in readers]
    if probes:
        lines += ["", "These read no credentials:", *(_line(row, widths) for row in probes)]
    if len(rows) > _MOST_ROWS:
        lines.append("… and more: --json and --csv have them all")
    lines += ["", "By fix:", *(f"  {line}" for line in fix_lines(merge.fixes()))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


@lru_cache(maxsize=4096)
def iso(seconds: float | None) -> str | None:
    """Unix seconds as `2026-11-24T00:00:00Z`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(text: str) -> str:
    """Text for a terminal: what is not printable ASCII is escaped."""
    return "".join(
        c if c.isprintable() and c.isascii() else c.encode("unicode_escape").decode() for c in text
    )


def _row(caller: MergedCaller) -> tuple[str, ...]:
    calls = [
        f"{caller.sessions[kind]} {kind}"
        for kind in ("legacy", "fallback", "bypass")
        if caller.sessions[kind]
    ]
    user = caller.user if caller.user is not None else caller.uid
    return (
        shown(name_of(caller.exe, caller.script, caller.unit, caller.container, caller.pod)),
        shown("-" if user is None else str(user)),
        "-" if caller.hosts is None else str(caller.hosts),
        (iso(caller.last_seen) or "-").replace("T", " ").removesuffix(":00Z").removesuffix("Z")[:16],
        ", ".join(calls),
        str(len(caller.items)),
        shown((advice_for(caller) or "-").partition("\n")[0]),
    )


def fix_lines(fixes: list[Fix]) -> Iterator[str]:
    """A line for each fix: how many hosts and callers, what to do, where."""
    for fix in fixes:
        text = (fix.text or _WITHOUT_FIX) if fix.legacy else _FALLBACK
        callers = f"{fix.callers} caller{'s' if fix.callers != 1 else ''}"
        hosts = f"{fix.hosts} host{'s' if fix.hosts != 1 else ''} ({callers})" if fix.hosts else callers
        where = f" [{shown(fix.example)}{', …' if (fix.hosts or 0) > 1 else ''}]" if fix.example else ""
        yield f"{hosts}: {shown(text.partition(chr(10))[0])}{where}"


def _cell(value: object) -> object:
    if isinstance(value, str):
        value = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
        return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value
    return value
