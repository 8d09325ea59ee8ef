"""One ledger's history, for the verdict: spans, losses, callers, programs.

Reads rows; judges nothing.
"""

from __future__ import annotations

import json
import sqlite3
from functools import lru_cache
from typing import NamedTuple

from imds_proxy.ledger.coverage import Gap, Span
from imds_proxy.ledger.verdict import CallerHistory, History, Program


class Client(NamedTuple):
    """The client program or library of a caller."""

    name: str | None
    version: str | None
    where: str | None


Now = tuple[str, float, float]  # this boot and its two clocks

_LOST = {"ledger.size": "the ledger was full, and callers were forgotten"}


def spans_of(ledger: sqlite3.Connection) -> list[Span]:
    """When the proxy watched, by its own clocks."""
    rows = ledger.execute(
        "SELECT boot, begin, end, begin_boot, end_boot, mode, enforcement, interception FROM spans"
        " ORDER BY id"
    )
    return [Span(*row) for row in rows]


def losses_of(ledger: sqlite3.Connection) -> list[Gap]:
    """Times of which counts are missing."""
    rows = ledger.execute("SELECT begin, end, reason, count FROM losses ORDER BY begin")
    return [
        Gap(begin, end, "counts-lost", f"{_LOST.get(reason, reason)} ({count})")
        for begin, end, reason, count in rows
    ]


def identity_of(ledger: sqlite3.Connection) -> tuple[str, str]:
    """The ledger's id, and the name of its machine."""
    meta = dict(ledger.execute("SELECT key, value FROM meta"))
    return str(meta.get("id", "")), str(meta.get("host", ""))


def history_of(ledger: sqlite3.Connection, now: Now | None = None) -> History:
    """All that the verdict rests on. `now` is given on the ledger's own machine."""
    programs = ledger.execute("SELECT name, version, location, advice FROM programs ORDER BY name")
    return History(
        spans=spans_of(ledger),
        losses=losses_of(ledger),
        callers=_callers(ledger),
        programs=[Program(*row) for row in programs],
        now=now,
    )


def name_of(
    exe: str | None, script: str | None, unit: str | None, container: str | None, pod: str | None
) -> str:
    """What people call a caller: its program, and where that runs."""
    what = script or exe or "(not found)"
    where = pod or container or unit
    return f"{what} ({where})" if where else what


def _callers(ledger: sqlite3.Connection) -> list[CallerHistory]:
    seen: dict[int, dict[str, float]] = {}
    for caller, session, last in ledger.execute("SELECT caller, session, last_seen FROM sessions"):
        seen.setdefault(caller, {})[session] = last
    found = []
    rows = ledger.execute(
        "SELECT id, exe, script, unit, coalesce(image, container), pod, client, advice, cause FROM callers"
        " ORDER BY last_seen DESC"
    )
    for number, *names, client, advice, cause in rows:
        known = client_of(client)
        found.append(
            CallerHistory(
                name=name_of(*names),
                last_seen=seen.get(number, {}),
                client=known.name,
                version=known.version,
                advice=advice,
                cause=cause,
            )
        )
    return found


@lru_cache(maxsize=4096)
def client_of(text: str | None) -> Client:
    """A stored client; all None where it is not known."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    facts = found if isinstance(found, dict) else {}
    texts = (facts.get(name) for name in Client._fields)
    return Client(*(text if isinstance(text, str) else None for text in texts))
