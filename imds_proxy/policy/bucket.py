"""A token bucket. Pure: the time is an argument."""

from __future__ import annotations


class TokenBucket:
    """Allows `burst` at once and `rate` a second after that. Not frozen: it is a meter."""

    __slots__ = ("__weakref__", "_burst", "_lent", "_level", "_rate", "_seen")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """`rate` per second and `burst` are positive; it starts full at `now` (seconds, monotonic)."""
        if rate <= 0 or burst <= 0:
            raise ValueError("rate and burst must be positive")
        self._rate, self._burst, self._level, self._seen = rate, burst, burst, now
        self._lent = 0

    def take(self, now: float) -> bool:
        """Takes one if there is one. A clock that steps back adds nothing and takes nothing away."""
        level = self._level
        if now > self._seen:  # as in `level`, without a call: it is taken from for every request
            level += (now - self._seen) * self._rate
            if level > self._burst:
                level = self._burst
            self._seen = now
        if level < 1:
            self._level = level
            return False
        self._level = level - 1
        return True

    def level(self, now: float) -> float:
        """How many there are."""
        if now > self._seen:
            self._level = min(self._burst, self._level + (now - self._seen) * self._rate)
            self._seen = now
        return self._level

    def wait(self, now: float) -> float:
        """Seconds until there is one."""
        return max(0.0, (1 - self.level(now)) / self._rate)

    def lend(self, most: int, now: float) -> int:
        """Takes up to `most` for somebody who will use them later: of what there is an eighth at most, and
        never so many that more than a quarter of the burst is lent.

        Until `settle` tells what became of them the bucket holds so many fewer: what is used at once, here
        and there, is never more than its burst.
        """
        room = (self._burst + self._lent) / 4 - self._lent
        lent = max(0, min(most, int(self.level(now) / 8), int(room)))
        self._level -= lent
        self._burst -= lent
        self._lent += lent
        return lent

    def settle(self, lent: int, unused: int, now: float) -> None:
        """Of those lent so many are settled, and of these so many come back unused."""
        self.level(now)
        self._burst += lent
        self._lent -= lent
        self._level = min(self._burst, self._level + unused)

    def change(self, rate: float, now: float, level: float | None = None) -> None:
        """Goes on at another rate, and with `level` left at most."""
        have = self.level(now)
        self._rate = rate
        self._level = have if level is None else min(have, level)
