"""The budget of calls to the real service: additive increase, multiplicative decrease. Pure.

Times are seconds of a monotonic clock, given as arguments.
"""

from __future__ import annotations

from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.rules import Rate

_RECOVERY = 0.05  # of the full rate, gained each second
_LEAST = 1 / 32  # of the full rate: below that recovery could not be seen
_LONGEST_PAUSE = 60.0  # seconds; a Retry-After beyond that is asked again


class AdaptiveBudget:
    """A token bucket whose rate halves when the service is overloaded and recovers by steps.

    A part of the burst is kept for callers that ask seldom (`sparse`), so that one which takes all it can
    get never makes them wait.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self._full = rate
        self._bucket = TokenBucket(rate.per_second, rate.burst, now)
        self._rate, self._recovered_at = rate.per_second, now
        self._halved_at: float | None = None
        self._paused_until = now

    @property
    def rate(self) -> float:
        """Calls per second at present."""
        return self._rate

    def change(self, rate: Rate, now: float) -> None:
        """Another full rate from now on. What was learned of the service is kept in proportion."""
        if rate == self._full:
            return
        part, level = self._rate / self._full.per_second, self._bucket.level(now)
        self._full, self._rate = rate, rate.per_second * part
        self._bucket = TokenBucket(self._rate, rate.burst, now)
        self._bucket.change(self._rate, now, level)

    def wait(self, now: float, sparse: bool) -> float:
        """Seconds until a call may go; 0: now."""
        if self._rate < self._full.per_second:
            self._recover(now)
        if now < self._paused_until:
            return self._paused_until - now
        # The less the service can take, the sooner what is kept is whole again.
        keep = 0.0 if sparse else (self._full.burst - 1) / 2 * (self._rate / self._full.per_second)
        return max(0.0, (1 + keep - self._bucket.level(now)) / self._rate)

    def take(self, now: float) -> None:
        """A call goes."""
        self._bucket.take(now)

    def overloaded(self, sent_at: float, now: float, retry_after: float | None = None) -> None:
        """The service answered 429 or 503, or not in time, to a call sent at `sent_at`.

        Halves the rate once per round trip: calls sent before the last halving say nothing new.
        """
        if retry_after is not None:
            self._paused_until = max(self._paused_until, now + min(retry_after, _LONGEST_PAUSE))
        if self._halved_at is not None and sent_at <= self._halved_at:
            return
        self._recover(now)
        self._halved_at = now
        self._rate = max(self._full.per_second * _LEAST, self._rate / 2)
        self._bucket.change(self._rate, now, level=1.0)

    def _recover(self, now: float) -> None:
        if self._rate < self._full.per_second and now > self._recovered_at:
            gained = (now - self._recovered_at) * _RECOVERY * self._full.per_second
            self._rate = min(self._full.per_second, self._rate + gained)
            self._bucket.change(self._rate, now)
        self._recovered_at = max(now, self._recovered_at)
