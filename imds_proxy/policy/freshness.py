"""How long an answer may be served again, and when it is asked for anew. Pure.

Times are seconds of CLOCK_BOOTTIME unless they say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from imds_proxy.protocol.credentials import CredentialTimes
from imds_proxy.protocol.profile import ItemClass

# Served beyond their time while the service cannot be asked; all others are too volatile, or too secret.
_SERVED_STALE = frozenset({ItemClass.STATIC, ItemClass.SLOW})
# Of a set's last `_LEAD`, in which the service offers its successor (documented: 30 minutes, of 6 hours).
_LEAD, _LEAD_PART = 1800.0, 1 / 12
_URGENT_PART, _LAST_PART = 1 / 2, 1 / 6  # 15 and 5 minutes: SDKs ask on every use; too short to hand out
_SOON_PART, _SOONEST = 1 / 180, 1.0  # 10 s; seconds, for a set that lives for minutes only
_JUMP = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Until when an answer is served without asking, and until when where the service could not be asked
    (from `urgent_from` on only where it truly could not). `renew_at` is when to ask ahead, while it is used.
    """

    fresh_until: float
    stale_until: float
    urgent_from: float = math.inf
    renew_at: float | None = None

    def at_most(self, fresh_until: float, stale_until: float) -> Lifetime:
        """The same, but not beyond these."""
        return replace(
            self,
            fresh_until=min(self.fresh_until, fresh_until),
            stale_until=min(self.stale_until, stale_until),
        )


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


@dataclass(frozen=True, slots=True)
class Left:
    """How long something lasts, in seconds: `least` to be sure that it has not ended, `most` that it has."""

    least: float
    most: float


def of_credentials(times: CredentialTimes, left: Left | None, now: float, chance: float) -> Lifetime | None:
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
    # Nothing lives longer than its whole life, whatever a Date says.
    least, most = min(left.least, times.life), min(left.most, times.life)
    if least <= last:
        return None
    fresh = now
    renew = now + (0.5 + chance / 2) * last
    if most > lead:
        fresh = now + most - lead  # not before a successor is offered: that would only be asked twice
        renew = fresh + chance * last
    elif least > urgent:
        fresh = now + max(lead * _SOON_PART, _SOONEST)
    urgent_from = now + least - urgent
    return Lifetime(min(fresh, max(now, urgent_from)), now + least - last, urgent_from, renew)


class ServiceClock:
    """The time by the service's own clock, from the Dates of its answers: the local one may be wrong.

    A Date is a whole second, made at some time between the question and the answer, so each gives bounds.
    """

    def __init__(self) -> None:
        self._ahead: tuple[float, float] | None = None  # of ours by so much, at least and at most
        self.jumps = 0  # what was judged before a jump is to be judged again

    def heard(self, date: float, asked: float, now: float) -> None:
        """An answer with this Date (Unix seconds), asked for at `asked`, came at `now`."""
        low, high = date - now, date + 1 - asked
        if self._ahead is not None:
            known_low, known_high = self._ahead
            if low - known_high > _JUMP or known_low - high > _JUMP:
                self.jumps += 1
            elif max(low, known_low) <= min(high, known_high):
                low, high = max(low, known_low), min(high, known_high)
            # Else it drifts: the newer bounds count.
        self._ahead = low, high

    def left(self, until: float, now: float) -> Left | None:
        """From `now` until that Unix time; None before the first Date was heard."""
        if self._ahead is None:
            return None
        low, high = self._ahead
        return Left(until - (now + high), until - (now + low))
