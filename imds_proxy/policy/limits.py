"""How fast each caller may ask: one token bucket for each identity and limit. Pure.

An identity is uid plus unit or container, so a caller cannot begin afresh with a new process.
"""

from __future__ import annotations

from cachetools import LRUCache

from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.caller import Identity
from imds_proxy.policy.rules import Rate, Rule

_MAX_CALLERS = 4096


class CallerLimits:
    """`hits` for every request, `misses` for those that need a call upstream; a rule's own rate takes the
    place of `hits` for what it means. Least recently seen callers are forgotten first."""

    def __init__(self, hits: Rate, misses: Rate) -> None:
        self._hits, self._misses = hits, misses
        self._buckets: LRUCache[tuple[Identity, str, Rate], TokenBucket] = LRUCache(_MAX_CALLERS)

    def change(self, hits: Rate, misses: Rate) -> None:
        """Other limits from now on; the buckets of those that stay the same carry over."""
        self._hits, self._misses = hits, misses

    def hit(self, identity: Identity, rule: Rule | None, now: float) -> float:
        """Counts a request: 0 if it may go on, else the seconds until one may."""
        if rule is not None and rule.rate is not None:
            return self._take(identity, f"rule {rule.name}", rule.rate, now)
        return self._take(identity, "hits", self._hits, now)

    def miss(self, identity: Identity, now: float) -> float:
        """Counts a request that needs a call upstream: 0 if it may go on, else the seconds until one may."""
        return self._take(identity, "misses", self._misses, now)

    def _take(self, identity: Identity, which: str, rate: Rate, now: float) -> float:
        key = (identity, which, rate)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(rate.per_second, rate.burst, now)
        return 0.0 if bucket.take(now) else bucket.wait(now)
