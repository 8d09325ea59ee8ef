"""One thing that was noticed of a caller. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`slug` names the kind, `sentence` is for people, `fix` is what to change without a place (None: nothing
    has to be changed for hardened mode)."""

    slug: str
    sentence: str
    fix: str | None = None
