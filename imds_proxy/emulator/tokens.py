"""Tokens of hardened mode: issued, valid until they expire or are revoked. Knows no HTTP, reads no clock."""

from __future__ import annotations

import re
import secrets
import threading
from base64 import urlsafe_b64encode

SHORTEST, LONGEST = 1, 21600
"""Seconds a token may be asked to live."""

TOKEN_MARK = "zqXk8Yn1"  # noqa: S105  (of what is emulated)
"""Every token begins with it, so that one that leaks can be found."""

_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
_BYTES = 40  # base64url of these is 56 visible characters and ends in `==`
_MOST = 1_000_000  # a bench may ask for a token per request


def parse_ttl(text: str | None) -> int | None:
    """The seconds a TTL header asks for, None if it is missing, no number, or out of 1 to 21600."""
    if text is None or not _DIGITS.fullmatch(text):
        return None
    seconds = int(text)
    return seconds if SHORTEST <= seconds <= LONGEST else None


class TokenStore:
    """Live tokens of one service; safe to share by threads, and by a service and the one after it.

    Every `now` is the service's clock, in seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expiry: dict[str, float] = {}
        self._prune_at = 1024

    def issue(self, life: float, now: float) -> str:
        """A new token that is valid for `life` seconds. Over a million live ones, the oldest goes."""
        token = TOKEN_MARK + urlsafe_b64encode(secrets.token_bytes(_BYTES)).decode()[len(TOKEN_MARK) :]
        with self._lock:
            if len(self._expiry) >= self._prune_at:
                self._prune(now)
            self._expiry[token] = now + life
        return token

    def valid(self, token: str, now: float) -> bool:
        """Whether the token was issued here and lives."""
        expiry = self._expiry.get(token)
        return expiry is not None and now < expiry

    def live(self, now: float) -> int:
        """How many tokens live."""
        with self._lock:
            return sum(1 for expiry in self._expiry.values() if now < expiry)

    def revoke_all(self) -> None:
        """No token issued so far is valid any more."""
        with self._lock:
            self._expiry.clear()

    def _prune(self, now: float) -> None:
        self._expiry = {token: expiry for token, expiry in self._expiry.items() if now < expiry}
        if len(self._expiry) >= _MOST:
            del self._expiry[next(iter(self._expiry))]
        self._prune_at = min(max(1024, 2 * len(self._expiry)), _MOST)
