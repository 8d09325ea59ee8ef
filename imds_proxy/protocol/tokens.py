"""Tokens as text: the TTL a caller may ask for, hashes, and sealed tokens.

Pure: keys, random bytes and the time are arguments. Knows nothing of where tokens are kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
from dataclasses import dataclass, field

from imds_proxy.errors import TOKEN_TTL, Refused
from imds_proxy.protocol.profile import Profile

_TTL = re.compile(rb"[0-9]{1,5}")
_VISIBLE = re.compile(r"[\x21-\x7e]{1,2048}")
_BODY = struct.Struct(">B16s16sQ")  # version, nonce, hash of the identity, expiry in ms
_VERSION = 1
_MAC = 32
NONCE = 16


def parse_ttl(value: bytes | None, profile: Profile) -> int:
    """Seconds asked for. Raises Refused(token-ttl), as the service answers 400 (provider's page)."""
    if value is None or not _TTL.fullmatch(value) or not profile.ttl_min <= int(value) <= profile.ttl_max:
        raise Refused(TOKEN_TTL)
    return int(value)


def is_token(text: str) -> bool:
    """Whether the text can be a token at all: 1 to 2048 visible ASCII characters (seen in clients)."""
    return _VISIBLE.fullmatch(text) is not None


def token_hash(token: str) -> bytes:
    """What is kept of a token, in memory tables and on disk: its SHA-256 (32 bytes)."""
    return hashlib.sha256(token.encode("latin-1")).digest()


@dataclass(frozen=True, slots=True)
class Seal:
    """Mints and opens sealed tokens. The key is for one boot of one instance: clones cannot use it."""

    key: bytes = field(repr=False)

    @classmethod
    def derive(cls, secret: bytes, boot_id: str, instance_id: str) -> Seal:
        """A key from the machine's secret, its boot id and the instance id."""
        context = f"imds-proxy seal\0{boot_id}\0{instance_id}".encode()
        return cls(hmac.new(secret, context, hashlib.sha256).digest())

    def mint(self, identity: bytes, expires: float, nonce: bytes) -> str:
        """A token for `identity` (any bytes, hashed), valid until `expires` (seconds, CLOCK_BOOTTIME)."""
        body = _BODY.pack(_VERSION, nonce, _short_hash(identity), int(expires * 1000))
        mac = hmac.new(self.key, body, hashlib.sha256).digest()
        return _text(body + mac)

    def open(self, token: str, now: float) -> bytes | None:
        """The hash of the identity it was minted for; None when forged, foreign or expired."""
        opened = self._open(token)
        return None if opened is None or now * 1000 >= opened[1] else opened[0]

    def expiry(self, token: str, identity: bytes) -> float | None:
        """Until when it is valid for that identity (seconds, CLOCK_BOOTTIME); None when it is not its."""
        opened = self._open(token)
        return opened[1] / 1000 if opened is not None and self.is_for(opened[0], identity) else None

    def _open(self, token: str) -> tuple[bytes, int] | None:
        """The identity's hash and the expiry in milliseconds; None when forged or foreign."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        # The last character has spare bits, which a decoder drops: only one spelling is the token.
        if len(raw) != _BODY.size + _MAC or _text(raw) != token:
            return None
        body, mac = raw[: _BODY.size], raw[_BODY.size :]
        if not hmac.compare_digest(mac, hmac.new(self.key, body, hashlib.sha256).digest()):
            return None
        version, _, identity, expires = _BODY.unpack(body)
        return (bytes(identity), int(expires)) if version == _VERSION else None

    def is_for(self, sealed_identity: bytes, identity: bytes) -> bool:
        """Whether the hash out of `open` is that of `identity`."""
        return hmac.compare_digest(sealed_identity, _short_hash(identity))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _short_hash(identity: bytes) -> bytes:
    return hashlib.sha256(identity).digest()[:16]
