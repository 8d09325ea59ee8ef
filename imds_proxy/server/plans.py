"""Answers known by heart: what a request did before, it does again while everything it rests on still holds.

A plan is kept under the exact bytes of a head, for callers that are alike (see `memory`). It is made only
where nothing was refused or to be reported, so it decides nothing: it checks that the policy, the answer,
the token and the client are what they were, takes from the caller's bucket, and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from imds_proxy.ledger.tally import Cell
from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.decision import Policy
from imds_proxy.protocol.request import Request
from imds_proxy.protocol.session import FALLBACK_WINDOW, Session


class Failure:
    """When a client's hardened call failed last (seconds, CLOCK_BOOTTIME), and why: which call (`token:` or
    `hardened:`), then a slug, `status-N` or `left`. A plain GET after it is a fallback. One for each client,
    shared by its connections; `told` is called with each."""

    __slots__ = ("_told", "at", "why")

    def __init__(self, told: Callable[[float], None] | None = None) -> None:
        self.at, self.why = float("-inf"), ""
        self._told = told

    def note(self, now: float, why: str) -> None:
        """It failed."""
        self.at, self.why = now, why
        if self._told is not None:
            self._told(now)


class Entry(Protocol):
    """What is answered, good before `until`, how often it was, and when last."""

    until: float
    hits: int
    used_at: float


@dataclass(slots=True)
class Lasting:
    """An answer that is good until its time, whatever happens."""

    until: float
    hits: int = 0
    used_at: float = float("-inf")


class InForce(Protocol):
    """Who knows the policy in force. Every reload makes another one, also one that changes limits only."""

    policy: Policy


@dataclass(slots=True, eq=False)
class Plan:
    """`wire` answers the head; `until` is when what the caller presented ends; `closes` the connection."""

    wire: bytes
    entry: Entry
    until: float
    service: InForce
    policy: Policy
    bucket: TokenBucket
    cell: Cell
    bump: Callable[[Cell], None]
    closes: bool

    def answer(self, now: float, failure: Failure) -> bytes | None:
        """The bytes of the answer, counted; None where it has to be worked out anew."""
        entry = self.entry
        if (
            now < entry.until
            and now < self.until
            and self.policy is self.service.policy
            and now - failure.at > FALLBACK_WINDOW
            and self.bucket.take(now)
        ):
            entry.hits += 1
            entry.used_at = now
            if self.cell.count:
                self.cell.count += 1  # as `bump` would, without a call
            else:
                self.bump(self.cell)
            return self.wire
        return None


@dataclass(frozen=True, slots=True)
class Standing:
    """Until when what a caller presented holds (seconds, CLOCK_BOOTTIME), and where its requests count."""

    until: float
    cell: Cell


@dataclass(slots=True, eq=False)
class Errand:
    """To a miss what a plan is to a hit: a request that was allowed, with nothing to report, and answered
    with 200 by the service. `hits` and `misses` are the caller's buckets; `cached`: it may be answered from
    the cache. Whoever asks again (see `asking`) checks that all of it holds."""

    request: Request
    session: Session
    policy: Policy
    standing: Standing
    hits: TokenBucket
    misses: TokenBucket
    cached: bool


def by_heart(
    plans: Mapping[bytes, Plan], data: bytes, now: float, failure: Failure, out: list[bytes]
) -> bytes:
    """Answers the requests at the front of a pipeline that are known, into `out`; what is left of it."""
    start = 0
    while (end := data.find(b"\r\n\r\n", start)) >= 0:
        plan = plans.get(data[start : end + 4])
        if plan is None or plan.closes:
            break
        answer = plan.answer(now, failure)
        if answer is None:
            break
        out.append(answer)
        start = end + 4
    return data[start:]
