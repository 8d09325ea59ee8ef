"""How fast each caller may ask: one token bucket for each identity and limit. Pure.

An identity is uid plus unit or container, so a caller cannot begin afresh with a new process.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from cachetools import LRUCache

from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.caller import Identity
from imds_proxy.policy.rules import Rate, Rule

_MAX_CALLERS = 4096
_MAX_MET = _MAX_CALLERS // 2  # fewer: who asks all the time is looked up before it could be forgotten
_Key = tuple[Identity, str, Rate]


class CallerLimits:
    """`hits` for every request, `misses` for those that need a call upstream; a rule's own rate takes the
    place of `hits` for what it means. Least recently seen callers are forgotten first."""

    def __init__(self, hits: Rate, misses: Rate) -> None:
        self._hits, self._misses = hits, misses
        self._buckets: LRUCache[_Key, TokenBucket] = LRUCache(_MAX_CALLERS)
        # A bucket that somebody holds on to is found again: a caller never has two.
        self._held: WeakValueDictionary[_Key, TokenBucket] = WeakValueDictionary()
        # The last look-ups, by identities as objects: to hash one costs more than to take from its bucket.
        self._met: dict[tuple[int, str], tuple[Identity, Rate, TokenBucket]] = {}

    def change(self, hits: Rate, misses: Rate) -> None:
        """Other limits from now on; the buckets of those that stay the same carry over."""
        self._hits, self._misses = hits, misses

    def hit(self, identity: Identity, rule: Rule | None, now: float) -> float:
        """Counts a request: 0 if it may go on, else the seconds until one may."""
        return _take(self.bucket(identity, rule, now), now)

    def bucket(self, identity: Identity, rule: Rule | None, now: float) -> TokenBucket:
        """From which `hit` takes, until the limits change."""
        if rule is not None and rule.rate is not None:
            return self._bucket(identity, f"rule {rule.name}", rule.rate, now)
        return self._bucket(identity, "hits", self._hits, now)

    def miss(self, identity: Identity, now: float) -> float:
        """Counts a request that needs a call upstream: 0 if it may go on, else the seconds until one may."""
        return _take(self.of_misses(identity, now), now)

    def of_misses(self, identity: Identity, now: float) -> TokenBucket:
        """From which `miss` takes, until the limits change."""
        return self._bucket(identity, "misses", self._misses, now)

    def _bucket(self, identity: Identity, which: str, rate: Rate, now: float) -> TokenBucket:
        met = self._met.get((id(identity), which))
        if met is not None and met[0] is identity and met[1] is rate:
            return met[2]
        if len(self._met) >= _MAX_MET:
            self._met.clear()
        bucket = self._found((identity, which, rate), now)
        self._met[id(identity), which] = identity, rate, bucket
        return bucket

    def _found(self, key: _Key, now: float) -> TokenBucket:
        bucket: TokenBucket | None = self._buckets.get(key)
        if bucket is None:
            bucket = self._held.get(key)
            if bucket is None:
                bucket = self._held[key] = TokenBucket(key[2].per_second, key[2].burst, now)
            self._buckets[key] = bucket
        return bucket


def _take(bucket: TokenBucket, now: float) -> float:
    return 0.0 if bucket.take(now) else bucket.wait(now)
