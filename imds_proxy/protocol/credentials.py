"""When a set of role credentials was made and when it ends, read from its JSON; and dates of HTTP heads.

Times are Unix seconds by the service's clock. Nothing of the secrets is kept.
"""

from __future__ import annotations

import calendar
import json
import re
from dataclasses import dataclass

_LARGEST = 65536  # bytes; a set is about 0.9 KB (captures)
_USUAL_LIFE = 21600.0  # seconds (provider's sample and captures)
_LARGEST_TREE = 1_048_576  # bytes; the JSON of all items is tens of KB
_SECRETS = ("AccessKeySecret", "SecurityToken")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(rb"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class CredentialTimes:
    """When a set ends (Unix seconds), and its whole life (seconds)."""

    expires: float
    life: float


def credential_times(body: bytes) -> CredentialTimes | None:
    """The times of a set that was given with success; None for whatever is not surely one."""
    if len(body) > _LARGEST:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return _times(found) if isinstance(found, dict) else None


def sets_within(body: bytes) -> tuple[CredentialTimes, ...] | None:
    """The times of all sets of credentials anywhere in a body, such as the JSON of all items; None where
    it may hold one whose times cannot be told."""
    if not any(name.encode() in body for name in _SECRETS):
        return ()
    found: list[CredentialTimes] = []
    try:
        waiting = [json.loads(body)] if len(body) <= _LARGEST_TREE else []
        while waiting:
            value = waiting.pop()
            if isinstance(value, str) and any(name in value for name in _SECRETS):
                waiting.append(json.loads(value))  # a set that stands in it as text
            elif isinstance(value, list):
                waiting += value
            elif isinstance(value, dict) and not any(name in value for name in _SECRETS):
                waiting += value.values()
            elif isinstance(value, dict):
                times = _times(value)
                if times is None:
                    return None
                found.append(times)
    except (ValueError, RecursionError):
        return None
    return tuple(found) or None


def http_date(value: bytes) -> float | None:
    """A Date header as Unix seconds; None where it is none. It has the one form in which dates may be sent
    (RFC 9110, 5.6.7); the two of before 1995 are not read."""
    match = _DATE.fullmatch(value)
    if match is None or (name := match[2].decode("ascii")) not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[part]) for part in (1, 3, 4, 5, 6))
    return _instant(year, _MONTHS.index(name) + 1, day, hour, minute, second)


def _times(found: dict[str, object]) -> CredentialTimes | None:
    if found.get("Code") != "Success":
        return None
    expires, updated = _seconds(found.get("Expiration")), _seconds(found.get("LastUpdated"))
    if expires is None:
        return None
    life = expires - updated if updated is not None else _USUAL_LIFE
    return CredentialTimes(expires, life) if life > 0 else None


def _seconds(text: object) -> float | None:
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    return _instant(*(int(part) for part in match.groups()))


def _instant(year: int, month: int, day: int, hour: int, minute: int, second: int) -> float | None:
    """Unix seconds; None for what is no time of a day of the month."""
    if not (
        year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61
    ):
        return None
    return float(calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0)))
