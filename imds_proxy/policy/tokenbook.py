"""Whose token is it: hashes of tokens that were given here, and of foreign ones that were tried.

Pure: the time is an argument (seconds, CLOCK_BOOTTIME). Never sees a token, only its hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cachetools import LRUCache

from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.caller import Identity

FOREIGN_MEMORY = 60.0  # seconds for which the service's word on a foreign token is believed
_FOREIGN_RATE, _FOREIGN_BURST = 0.2, 5.0  # tries of refused foreign tokens, per identity


@dataclass(frozen=True, slots=True)
class Grant:
    """A token that was given here: to whom, and until when it was promised."""

    identity: Identity
    expires: float


class TokenBook:
    """Grants by token hash, bounded. A grant's promise only ever grows."""

    def __init__(self, size: int = 16384) -> None:
        self._grants: LRUCache[bytes, Grant] = LRUCache(size)
        self._changed: set[bytes] = set()

    def give(self, token_hash: bytes, identity: Identity, expires: float) -> None:
        """Notes that the token was promised to `identity` until `expires`."""
        known = self._grants.get(token_hash)
        if known is None or known.expires < expires:
            self._grants[token_hash] = Grant(identity, expires)
            self._changed.add(token_hash)

    def find(self, token_hash: bytes) -> Grant | None:
        """The grant, also when it has expired (the caller compares `expires`); None for a foreign token."""
        grant: Grant | None = self._grants.get(token_hash)
        return grant

    def take_changes(self) -> list[tuple[bytes, Grant]]:
        """The grants that are new or longer since the last call."""
        changed, self._changed = self._changed, set()
        return [(key, self._grants[key]) for key in changed if key in self._grants]

    def live(self, now: float) -> Iterator[tuple[bytes, Grant]]:
        """All grants whose promise still holds."""
        return ((key, grant) for key, grant in list(self._grants.items()) if grant.expires > now)


class ForeignTokens:
    """What the service said of tokens that were not given here, for at most 60 s."""

    def __init__(self, size: int = 4096) -> None:
        self._accepted: LRUCache[tuple[bytes, Identity], float] = LRUCache(size)
        self._refused: LRUCache[bytes, float] = LRUCache(size)
        self._buckets: LRUCache[Identity, TokenBucket] = LRUCache(1024)

    def is_accepted(self, token_hash: bytes, identity: Identity, now: float) -> bool:
        """Whether the service took it from this very identity within the last 60 s."""
        return now < self._accepted.get((token_hash, identity), 0.0)

    def may_try(self, token_hash: bytes, identity: Identity, now: float) -> bool:
        """Whether the service may be asked. Each try costs the identity's strict bucket; a success
        gives it back, so that only made-up tokens run it dry."""
        if now < self._refused.get(token_hash, 0.0):
            return False
        bucket = self._buckets.get(identity)
        if bucket is None:
            bucket = self._buckets[identity] = TokenBucket(_FOREIGN_RATE, _FOREIGN_BURST, now)
        return bucket.take(now)

    def accepted(self, token_hash: bytes, identity: Identity, now: float) -> None:
        """The service took it."""
        self._accepted[token_hash, identity] = now + FOREIGN_MEMORY
        self._buckets.pop(identity, None)

    def refused(self, token_hash: bytes, identity: Identity, now: float) -> None:
        """The service refused it."""
        self._accepted.pop((token_hash, identity), None)
        self._refused[token_hash] = now + FOREIGN_MEMORY
