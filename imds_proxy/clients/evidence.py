"""What was found of a process's client libraries, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MAX_WHERE = 512  # characters


@dataclass(frozen=True, slots=True)
class Found:
    """A package of the catalogue. `ecosystem` is a field of `catalogue.Find`, `name` the catalogue's own,
    `version` as written there (None: it is not told), `where` a path as the process sees it."""

    ecosystem: str
    name: str
    version: str | None
    where: str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable of the closed list, as it is set in a process: what it means, never its value."""

    name: str
    value: str  # "true", "True" (other letters' case), "false", "other", "set"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a look at a process gave. `missing` says why there is less than there might be; None when
    the look was whole."""

    found: tuple[Found, ...] = ()
    settings: tuple[Setting, ...] = ()
    missing: str | None = None


def shown(text: str, limit: int = MAX_WHERE) -> str:
    """Text that a process chose, on one line, without control characters, cut to `limit`."""
    safe = "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode("ascii")
        for one in text[:limit]
    )
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"
