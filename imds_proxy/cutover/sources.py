"""The provider's other two sources of truth, to compare with the ledger: what they saw and it did not. Pure.

CloudMonitor counts normal-mode calls of an instance (its names of metrics are not documented, so any
datapoint's value counts); the analyzer of packets (`ACS-ECS-ImdsPacketAnalyzer`) logs a WARNING line for each
call, whose form is not documented either: what is looked for in it are `pid`, and words after `argv`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

_VALUES = ("value", "sum", "maximum", "average", "count")  # of a datapoint, in this order
_LONGEST_COMM = 15
_INSTANCES = ("instanceid", "instance_id", "instance")
_PID = re.compile(r"\bpid\s*[:=]\s*(\d+)(?:\s*:\s*([^\s:),]+))?", re.IGNORECASE)
_ARGV = re.compile(r"\bargv\s*[:=]\s*(.+?)\s*(?:\)|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Traced:
    """A normal-mode call as the analyzer logged it; a claim of the process's where it has a name."""

    pid: int
    name: str | None
    argv: str | None


def normal_mode_counts(text: str) -> dict[str, float]:
    """Normal-mode calls by instance from CloudMonitor: the JSON of its API, or the CSV of its console.

    Raises ValueError with a sentence.
    """
    rows = list(_rows(text))
    counts: dict[str, float] = {}
    for row in rows:
        low = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
        instance = next((low[key] for key in _INSTANCES if key in low), None)
        value = next((low[key] for key in _VALUES if key in low), None)
        if instance is None or value is None:
            raise ValueError(
                "a datapoint without instance or value; "
                f"columns {', '.join(_INSTANCES)} and one of {', '.join(_VALUES)} are looked for"
            )
        try:
            counts[str(instance)] = counts.get(str(instance), 0.0) + float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{str(value)[:40]!r} is no number of calls") from None
    return counts


def traced_calls(text: str) -> list[Traced]:
    """The normal-mode calls of the analyzer's log: its WARNING lines that name a pid."""
    calls = []
    for line in text.splitlines():
        if "WARNING" not in line or (pid := _PID.search(line)) is None:
            continue
        argv = _ARGV.search(line)
        calls.append(Traced(int(pid[1]), pid[2], argv[1][:200] if argv else None))
    return calls


def unseen(
    counts: Mapping[str, float], calls: Iterable[Traced], callers: Iterable[Mapping[str, Any]]
) -> Iterator[str]:
    """What these saw and the ledger did not, in sentences; `callers` as in `report --json`."""
    for instance, count in sorted(counts.items()):
        if count > 0:
            # Behind the proxy every call that reaches the service carries a token.
            yield f"{instance}: CloudMonitor counted {count:g} normal-mode calls, past the proxy"
    known = {PurePath(path).name for one in callers for path in (one.get("exe"), one.get("script")) if path}
    for name, argv in sorted({(_name(one), one.argv or "") for one in calls}):
        if not any(_alike(name, one) for one in known):
            claim = f" ({argv})" if argv else ""
            yield f"{name} was seen by the packet analyzer and is not in the ledger{claim}"


def _alike(name: str, other: str) -> bool:
    # `python3` may be `python3.11` by its own name, and the kernel cuts names at 15 bytes.
    cut = len(name) == _LONGEST_COMM and other.startswith(name)
    return cut or re.fullmatch(re.escape(name) + r"[0-9.]*", other) is not None


def _name(call: Traced) -> str:
    if call.name:
        return PurePath(call.name).name
    words = (call.argv or "").split()
    return PurePath(words[0]).name if words else f"process {call.pid}"


def _rows(text: str) -> Iterator[Mapping[str, Any]]:
    if text.lstrip().startswith(("{", "[")):
        try:
            found = json.loads(text)
            points = found.get("Datapoints", []) if isinstance(found, dict) else found
            points = json.loads(points) if isinstance(points, str) else points  # the API quotes its list
            yield from [{**point} for point in points]
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise ValueError("not the JSON of CloudMonitor's DescribeMetricList") from None
        return
    try:
        yield from csv.DictReader(io.StringIO(text, newline=None))
    except csv.Error as error:
        raise ValueError(f"not the CSV of CloudMonitor's console: {error}") from None
