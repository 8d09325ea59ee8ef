"""What a worker was taught: answers to heads, for kinds of callers; how many it may give, how many it gave.

Pure: the time is an argument, the page of numbers (see `board`) something to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from imds_proxy.ledger.tally import CallerKey, key_of
from imds_proxy.policy.caller import Caller, Profile
from imds_proxy.protocol.session import FALLBACK_WINDOW

_KINDS, _PLANS = 2048, 8192
_IDLE = 50  # accounts without use after which a lease is given back: ten seconds

Key = tuple[Profile, CallerKey, tuple[object, ...]]
"""What callers that are alike have in common: what rules and the ledger see of them, where they called."""

Counted = list[tuple[int, int]]
"""Number of a lesson, and how often it answered."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """How a head is answered: `wire`, before `until` (seconds, CLOCK_BOOTTIME), while the stamps are these,
    for as many as the lease of that number has. `closes` the connection."""

    number: int
    wire: bytes
    until: float
    closes: bool
    lease: int
    generation: int
    slot: int
    stamp: int


@dataclass(slots=True, eq=False)
class Lease:
    """How many answers a worker may give of a caller's bucket (`left`), and gave since it last said so."""

    number: int
    left: int = 0
    used: int = 0
    low: int = 0  # left, below which it is time to ask for more
    idle: int = 0
    asked: bool = False


@dataclass(slots=True, eq=False)
class Learnt:
    """A lesson with its lease, and how often it answered since that was last said."""

    lesson: Lesson
    lease: Lease
    count: int = 0


@dataclass(slots=True, eq=False)
class Kind:
    """Callers that are alike, named in one epoch."""

    plans: dict[bytes, Learnt] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """What a worker did since its last one: answers by lesson, answers used and given back by lease, lessons
    that it has forgotten."""

    counted: Counted
    settled: list[tuple[int, int, int]]
    forgotten: list[int]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to say."""
        return not (self.counted or self.settled or self.forgotten)


class Knowledge:
    """Of one worker. Bounded: where there is too much all is forgotten, and taught again."""

    def __init__(self, stamps: Sequence[int]) -> None:
        self._stamps = stamps
        self._kinds: dict[Key, Kind] = {}
        self._leases: dict[int, Lease] = {}
        self._counted: list[Learnt] = []
        self._forgotten: list[int] = []
        self._plans = 0

    def kind_of(self, caller: Caller, own: tuple[object, ...]) -> Kind:
        """The kind of a caller that connected to `own`."""
        key = (caller.profile, key_of(caller), own[:2])
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= _KINDS:
                self.forget()
            found = self._kinds[key] = Kind()
        return found

    def refuse(self, lesson: Lesson) -> None:
        """Does not take a lesson: it is as if it was forgotten."""
        self._forgotten.append(lesson.number)

    def learn(self, kind: Kind, head: bytes, lesson: Lesson) -> None:
        """Takes a lesson; one that has ended meanwhile never answers."""
        if self._plans >= _PLANS:
            self._forget_plans()
        before = kind.plans.get(head)
        if before is not None:
            self._forgotten.append(before.lesson.number)
        else:
            self._plans += 1
        lease = self._leases.get(lesson.lease)
        if lease is None:
            lease = self._leases[lesson.lease] = Lease(lesson.lease)
        kind.plans[head] = Learnt(lesson, lease)

    def grant(self, number: int, more: int) -> None:
        """Of that bucket so many more may be given; none where that many are all there are to be had."""
        lease = self._leases.get(number)
        if lease is None:
            lease = self._leases[number] = Lease(number)
        lease.asked, lease.low, lease.idle = False, more // 2, 0
        lease.left += more

    def takes(self, learnt: Learnt, now: float, failed: float) -> bool:
        """Whether it answers now, and counts it; `failed` is when the client's hardened call failed last."""
        lesson, lease = learnt.lesson, learnt.lease
        stamps = self._stamps
        if (
            stamps[lesson.slot] == lesson.stamp
            and stamps[0] == lesson.generation
            and now < lesson.until
            and now - failed > FALLBACK_WINDOW
            and lease.left
        ):
            lease.left -= 1
            lease.used += 1
            lease.idle = 0
            if not learnt.count:
                self._counted.append(learnt)
            learnt.count += 1
            return True
        if stamps[0] != lesson.generation:
            self._forget_plans()
        return False

    def forget(self) -> None:
        """Forgets all kinds, and what was taught for them."""
        self._forget_plans()
        self._kinds.clear()

    def account(self, *, last: bool = False) -> Account:
        """What is to be said now. A lease that nobody used since the account before is given back; the last
        time, all are."""
        counted = [(one.lesson.number, one.count) for one in self._counted]
        for one in self._counted:
            one.count = 0
        settled = []
        for lease in list(self._leases.values()):
            unused = lease.left if lease.idle >= _IDLE or last or not self._plans else 0
            lease.idle += 1
            if lease.used or unused:
                settled.append((lease.number, lease.used, unused))
                lease.left -= unused
                lease.used = 0
            elif not self._plans and not lease.asked:
                del self._leases[lease.number]
        forgotten, self._forgotten = self._forgotten, []
        self._counted = []
        return Account(counted, settled, forgotten)

    def _forget_plans(self) -> None:
        for kind in self._kinds.values():
            self._forgotten += [one.lesson.number for one in kind.plans.values()]
            kind.plans.clear()
        self._plans = 0
