"""A limit of requests per second. Reads no clock, knows no HTTP."""

from __future__ import annotations

import threading


class Bucket:
    """A token bucket that threads share: `rate` requests a second, `burst` at once, full at first."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at: float | None = None
        self._lock = threading.Lock()

    def take(self, now: float) -> bool:
        """Whether one more request fits at `now` (seconds of a steady clock)."""
        with self._lock:
            if self._at is not None:
                self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
            self._at = now
            if self._level < 1:
                return False
            self._level -= 1
            return True
