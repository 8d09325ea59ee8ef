"""How long an answer may be served again, and when it is asked for anew. Pure.

Times are seconds of CLOCK_BOOTTIME unless they say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from imds_proxy.protocol.credentials import CredentialTimes
from imds_proxy.protocol.profile import ItemClass

# Served beyond their time while the service cannot be asked; all others are too volatile, or too secret.
_SERVED_STALE = frozenset({ItemClass.STATIC, ItemClass.SLOW})
# Of a set's last `_LEAD`, in which the service offers its successor (documented: 30 minutes, of 6 hours).
_LEAD, _LEAD_PART = 1800.0, 1 / 12
_URGENT_PART, _LAST_PART = 1 / 2, 1 / 6  # 15 and 5 minutes: SDKs ask on every use; too short to hand out
_SOON_PART, _AT_ONCE_PART = 1 / 180, 1 / 1800  # 10 s and 1 s
_JUMP = 5.0  # seconds; more than a Date's second and the way of an answer


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Until when an answer is served without asking, and until when where the service could not be asked
    (from `urgent_from` on only where it truly could not). `renew_at` is when to ask ahead, while it is used.
    """

    fresh_until: float
    stale_until: float
    urgent_from: float = math.inf
    renew_at: float | None = None


@dataclass(frozen=True, slots=True)
class Freshness:
    """The configured times (seconds): by class (one that is not there is never kept), for a 404, and how long
    answers beyond their time are good."""

    by_class: Mapping[ItemClass, float]
    missing: float
    stale: float

    def of(self, item: ItemClass, has_query: bool, status: int, now: float) -> Lifetime | None:
        """The lifetime of an answer that holds no credentials, got at `now`; None: not to be kept."""
        seconds = self.by_class.get(item, 0.0)
        if status == 404:
            # It carries meaning: for spot termination "keep running", for a role "none attached yet".
            seconds = min(self.missing, seconds)
        elif status != 200:
            return None
        if seconds <= 0 or (item is ItemClass.UNKNOWN and has_query):  # a query may be a nonce
            return None
        stale = self.stale if status == 200 and item in _SERVED_STALE else 0.0
        return Lifetime(now + seconds, now + seconds + stale)


def of_credentials(times: CredentialTimes, left: float | None, now: float, chance: float) -> Lifetime | None:
    """The lifetime of a set of credentials got at `now`; None: not to be kept.

    `left` is how long it lives by the service's clock, None where that clock is not known; `chance` is from
    0 to 1, so that a fleet does not ask at one moment. Margins are of a set of 6 hours, and in proportion of
    a shorter one.
    """
    lead = min(_LEAD, times.life * _LEAD_PART)
    urgent, last = lead * _URGENT_PART, lead * _LAST_PART
    if left is None:
        # The service offers a successor `lead` before the end, so what it gives now lives as long at least.
        return Lifetime(now + lead / 3, now + lead - last)
    end = now + left
    if left > lead:
        fresh, renew = end - lead, end - lead + chance * lead * _LAST_PART
    elif left > last:
        fresh = now + lead * (_SOON_PART if left > urgent else _AT_ONCE_PART)
        renew = now + (0.5 + chance / 2) * lead * _LAST_PART
    else:
        return None
    return Lifetime(fresh, end - last, end - urgent, renew)


class ServiceClock:
    """The time by the service's own clock, from the Date of its answers: the local one may be wrong."""

    def __init__(self) -> None:
        self._ahead: float | None = None
        self.jumps = 0  # what was judged before a jump is to be judged again

    def heard(self, date: float, now: float) -> None:
        """An answer with this Date (Unix seconds) came at `now`."""
        ahead = date + 1 - now  # of a second that may be almost over: an end comes early, never late
        if self._ahead is not None and abs(ahead - self._ahead) > _JUMP:
            self.jumps += 1
        self._ahead = ahead

    def left(self, until: float, now: float) -> float | None:
        """Seconds from `now` until that Unix time; None before the first Date was heard."""
        return None if self._ahead is None else until - (now + self._ahead)
