"""The four kinds of session, and the table that tells them apart.

Knows nothing of policy: for policy a fallback is a legacy call, the difference is for people.
"""

from __future__ import annotations

from enum import Enum

# The oldest SDK waits 10 s for a token, then sends its plain GET (CLIENTS, rule 4).
FALLBACK_WINDOW = 11.0


class Session(Enum):
    """`legacy`: a plain GET. `fallback`: a plain GET of a client whose token PUT, or GET with a token,
    failed within the last 11 s. `hardened`: a GET with a token. `token`: the PUT."""

    LEGACY = "legacy"
    FALLBACK = "fallback"
    HARDENED = "hardened"
    TOKEN = "token"  # noqa: S105  (a kind of session, not a secret)

    __hash__ = object.__hash__  # each is one object, and in the key of look-ups of every request


_TABLE = {
    # (PUT, has a token, failed lately)
    (True, False, False): Session.TOKEN,
    (True, False, True): Session.TOKEN,
    (True, True, False): Session.TOKEN,
    (True, True, True): Session.TOKEN,
    (False, True, False): Session.HARDENED,
    (False, True, True): Session.HARDENED,
    (False, False, False): Session.LEGACY,
    (False, False, True): Session.FALLBACK,
}


def session_kind(is_put: bool, has_token: bool, failed_at: float | None, now: float) -> Session:
    """The kind of one request; `failed_at` is when its client's hardened call last failed (seconds)."""
    lately = failed_at is not None and 0 <= now - failed_at <= FALLBACK_WINDOW
    return _TABLE[is_put, has_token, lately]
