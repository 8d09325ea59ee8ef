"""Credentials of the instance's RAM role: which set is offered when, and its bytes. Knows no HTTP or clock.

A new set is offered some time before the old one expires (documented: 30 minutes); both are valid then.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from dataclasses import dataclass

SECRET_MARK = "zqXj7Wv0"  # noqa: S105  (of what is emulated)
"""Stands in every secret again and again, so that a leak of a part of one can be found too. It is no word
that a redaction might look for."""

_MARK_EVERY = 24  # characters
_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789"


def timestamp(seconds: float) -> str:
    """Unix seconds as `YYYY-MM-DDThh:mm:ssZ`, the form of the service's JSON."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@dataclass(frozen=True, slots=True)
class CredentialSet:
    """One set; times in Unix seconds."""

    access_key_id: str
    access_key_secret: str
    security_token: str
    last_updated: int
    expiration: int

    def render(self) -> bytes:
        """The JSON as captured from the service: a blank before the brace, a blank before each colon."""
        members = {
            "AccessKeyId": self.access_key_id,
            "AccessKeySecret": self.access_key_secret,
            "Expiration": timestamp(self.expiration),
            "SecurityToken": self.security_token,
            "LastUpdated": timestamp(self.last_updated),
            "Code": "Success",
        }
        lines = ",\n".join(f'  "{name}" : "{value}"' for name, value in members.items())
        return f" {{\n{lines}\n}}".encode()


class Issuer:
    """Makes the sets of one service. Two calls of one moment give one set; a restarted service given the
    issuer of the one before offers the same sets."""

    def __init__(self, epoch: float) -> None:
        """The first set is dated `epoch` (Unix seconds)."""
        self._epoch = int(epoch)
        self._seed = secrets.token_bytes(16)
        self._last: tuple[tuple[object, ...], bytes] | None = None

    def rendered(self, role: str, now: float, life: float, lead: float) -> bytes:
        """The bytes of the newest set at `now`: each lives `life` seconds, its successor is offered `lead`
        seconds before it expires (`lead < life`)."""
        number = math.floor((now - self._epoch) / (life - lead))
        key = (role, number, life, lead)
        last = self._last
        if last is None or last[0] != key:
            last = (key, self._make(role, number, life, lead).render())
            self._last = last
        return last[1]

    def _make(self, role: str, number: int, life: float, lead: float) -> CredentialSet:
        updated = self._epoch + number * (life - lead)
        material = f"{role}/{number}/{life}/{lead}".encode()
        return CredentialSet(
            access_key_id="STS.N" + self._text(material + b"/id", 24),
            access_key_secret=_marked(self._text(material + b"/secret", 44)),
            security_token="CAIS" + _marked(self._text(material + b"/token", 596)),
            last_updated=int(updated),
            expiration=int(updated + life),
        )

    def _text(self, material: bytes, length: int) -> str:
        digest = hashlib.shake_128(self._seed + material).digest(length)
        return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest)


def _marked(text: str) -> str:
    parts = (text[at : at + _MARK_EVERY] for at in range(0, len(text), _MARK_EVERY))
    return "".join(SECRET_MARK + part[len(SECRET_MARK) :] for part in parts)[: len(text)]
