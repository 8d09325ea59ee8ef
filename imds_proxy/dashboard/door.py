"""Who may see the page: whoever opens the one-time key first, and nobody else. Pure.

Other users of the machine can connect to a loopback port too; a web page can have a browser ask it.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable

COOKIE = "imds-proxy-dashboard"
_BYTES = 24


class Door:
    """`key` opens once. Then a cookie does, as long as the program runs."""

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(_BYTES)
        self._used = False
        self._session = secrets.token_urlsafe(_BYTES)

    def open(self, path: str) -> str | None:
        """The cookie to set for a path that is the key; None for any other, and for the key a second time."""
        if self._used or not hmac.compare_digest(path.encode(), f"/{self.key}".encode()):
            return None
        self._used = True
        return f"{COOKIE}={self._session}; HttpOnly; SameSite=Strict; Path=/"

    def knows(self, cookies: Iterable[str]) -> bool:
        """Whether one of these Cookie headers has it."""
        expected = f"{COOKIE}={self._session}".encode()
        given = [part.strip().encode() for header in cookies for part in header.split(";")]
        return any(hmac.compare_digest(one, expected) for one in given)
