"""From what callers were seen to read to the rules that allow just that. Pure.

Knows nothing of logs or YAML: observations in, suggestions out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from imds_proxy.policy.sensitive import SensitivePaths
from imds_proxy.protocol.items import PathPattern

_VARYING = re.compile(r"[0-9]+|(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.ASCII)
_LITERAL = re.compile(r"(?:[a-z0-9._~!$&'()+,=:@-]|%(?:20|22|3c|3e|5b|5d|5e|60|7b|7c|7d))+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Seen:
    """What stays the same of a caller from process to process: the facts that a rule may name."""

    exe: str | None
    script: str | None
    user: str | None
    uid: int | None
    unit: str | None
    container: str | None


@dataclass(slots=True)
class Observation:
    """How often a caller was seen in each kind of session, and the items that it read (segments in lower
    case, without the version)."""

    sessions: dict[str, int] = field(default_factory=dict)
    items: set[tuple[str, ...]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One rule: its name, selectors in the order of the configuration's keys, paths, and how often its
    caller was seen in each kind of session."""

    name: str
    caller: tuple[tuple[str, str], ...]
    container: str | None
    paths: tuple[str, ...]
    sessions: tuple[tuple[str, int], ...]


def suggest(seen: Iterable[tuple[Seen, Observation]], sensitive: SensitivePaths) -> list[Suggestion]:
    """A rule for each caller that was seen: the ones with the most facts first, so that none hides another.

    A caller of whom neither uid nor user is known gets none: no rule could tell it from others.
    """
    found: list[Suggestion] = []
    names: dict[str, int] = {}
    known = [(who, what) for who, what in seen if who.user is not None or who.uid is not None]
    for who, what in sorted(known, key=lambda one: (-_facts(one[0]), repr(one[0]))):
        paths = minimal(what.items, sensitive)
        if not paths:
            continue
        name = _name(who)
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            name = f"{name} {names[name]}"
        found.append(
            Suggestion(name, _selectors(who), who.container, paths, tuple(sorted(what.sessions.items())))
        )
    return found


def minimal(items: Iterable[tuple[str, ...]], sensitive: SensitivePaths) -> tuple[str, ...]:
    """Patterns for just these items: numbers and MAC addresses become `*`, but nothing sensitive does.

    The root's and a version's own listing need no pattern: they are not denied.
    """
    patterns = {pattern for item in items if (pattern := _pattern(item, sensitive))}
    parsed = [PathPattern.parse(text) for text in sorted(patterns)]
    return tuple(
        one.text for one in parsed if not any(other is not one and other.covers(one) for other in parsed)
    )


def _pattern(segments: tuple[str, ...], sensitive: SensitivePaths) -> str:
    exact = sensitive.match(segments) is not None
    out = []
    for number, segment in enumerate(segments):
        varies = number > 0 and not exact and _VARYING.fullmatch(segment)
        out.append("*" if varies or not _LITERAL.fullmatch(segment) else segment)
    return "/".join(out)


def _facts(who: Seen) -> int:
    return sum(fact is not None for fact in (who.exe, who.script, who.unit, who.container))


def _selectors(who: Seen) -> tuple[tuple[str, str], ...]:
    exe = who.exe if who.exe and who.exe.startswith("/") and not who.exe.endswith(" (deleted)") else None
    user = ("user", who.user) if who.user is not None else ("uid", str(who.uid))
    pairs = (("exe", exe), ("script", who.script), user, ("unit", who.unit))
    return tuple((name, value) for name, value in pairs if value is not None)


def _name(who: Seen) -> str:
    program = (who.exe or "unknown program").rpartition("/")[2].removesuffix(" (deleted)")
    script = who.script.rpartition("/")[2] if who.script else ""
    place = who.unit or (who.container[:12] if who.container else "")
    words = (program, script, "of", who.user or str(who.uid), f"in {place}" if place else "")
    return re.sub(r"[^A-Za-z0-9 ._:/@()'+,-]", "_", " ".join(" ".join(words).split()))[:70].strip()
