"""What the service was asked and how often. Knows no HTTP beyond the names of its counters."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

_PATHS = 10_000
OTHER_PATHS = "(other paths)"
"""Stands in `by_path` for what comes after the first 10,000 paths."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests since the start or the last reset.

    `token_puts`: PUTs on the token path, whatever was answered. `v1_gets`, `v2_gets`: GET and HEAD on data
    without and with a token, whatever was answered. `refused`: 4xx answers but 404 and throttling.
    `by_path`: GET and HEAD on data by path as it came, without its query.
    """

    token_puts: int = 0
    v1_gets: int = 0
    v2_gets: int = 0
    refused: int = 0
    throttled: int = 0
    by_path: dict[str, int] = field(default_factory=dict)


class Counters:
    """Counts that threads share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Back to nothing."""
        with self._lock:
            self._token_puts = self._v1_gets = self._v2_gets = self._refused = self._throttled = 0
            self._by_path: dict[str, int] = {}

    def token_put(self) -> None:
        """A PUT on the token path came."""
        with self._lock:
            self._token_puts += 1

    def data_get(self, path: str, with_token: bool) -> None:
        """A GET or HEAD on data came."""
        with self._lock:
            if with_token:
                self._v2_gets += 1
            else:
                self._v1_gets += 1
            if path not in self._by_path and len(self._by_path) >= _PATHS:
                path = OTHER_PATHS
            self._by_path[path] = self._by_path.get(path, 0) + 1

    def refused(self) -> None:
        """A request was answered 4xx, neither for a missing item nor for throttling."""
        with self._lock:
            self._refused += 1

    def throttled(self) -> None:
        """A request was over the rate."""
        with self._lock:
            self._throttled += 1

    def read(self) -> Counts:
        """All counts of one moment."""
        with self._lock:
            return Counts(
                self._token_puts,
                self._v1_gets,
                self._v2_gets,
                self._refused,
                self._throttled,
                dict(self._by_path),
            )
