"""What one worker was taught, as the daemon keeps it: by which plan, and how much of which bucket it has.

Decides what may be taught: only what the daemon itself would answer by heart at this moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from imds_proxy.ledger.tally import Cell
from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.protocol.session import FALLBACK_WINDOW
from imds_proxy.server.plans import Failure, Lasting, Plan
from imds_proxy.server.workers.board import Board
from imds_proxy.server.workers.learnt import Counted, Lesson
from imds_proxy.upstream.store import Stored

_LARGEST = 4096  # bytes of an answer
_LENT = 256  # answers at a time, of one caller's bucket


class Pins:
    """Where on the board each answer stands that was taught, to whichever worker."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._pinned: dict[int, tuple[int, int]] = {}

    def of(self, plan: Plan) -> tuple[int, int] | None:
        """Slot and stamp of the answer; None where there is no room for another."""
        entry = plan.entry
        if isinstance(entry, Lasting):
            return 0, self.board.generation
        if not isinstance(entry, Stored):
            return None
        found = self._pinned.get(id(entry))
        if found is None:
            found = self.board.pin()
            if found is not None:
                self._pinned[id(entry)] = found
                entry.ended = partial(self._ended, entry)
        return found

    def _ended(self, entry: Stored) -> None:
        entry.ended = None
        slot, _ = self._pinned.pop(id(entry))
        self.board.unpin(slot)


@dataclass(slots=True, eq=False)
class _Loan:
    """What is lent of a bucket, and how many lessons rest on it."""

    number: int
    bucket: TokenBucket
    lent: int = 0
    lessons: int = 0


class Lessons:
    """Of one worker. `bump` counts requests in a cell."""

    def __init__(self, pins: Pins, bump: Callable[[Cell, int], None]) -> None:
        self._pins, self._bump = pins, bump
        self._plans: dict[int, tuple[Plan, _Loan]] = {}
        self._loans: dict[int, _Loan] = {}
        self._by_bucket: dict[int, _Loan] = {}
        self._taught: dict[int, Lesson] = {}  # by plan
        self._last = 0

    def make(self, plan: Plan, failure: Failure, now: float, short: bool) -> tuple[Lesson, int] | None:
        """The lesson, and how many answers are lent with it; None where it is not to be taught. `short`: of
        that bucket the worker has none left."""
        until = min(plan.entry.until, plan.until)
        if (
            len(plan.wire) > _LARGEST
            or now >= until
            or plan.policy is not plan.service.policy
            or now - failure.at <= FALLBACK_WINDOW
        ):
            return None
        pin = self._pins.of(plan)
        if pin is None:
            return None
        loan = self._by_bucket.get(id(plan.bucket))
        wanted = short or loan is None or not loan.lent
        lent = plan.bucket.lend(_LENT, now) if wanted else 0
        if wanted and not lent:
            return None
        loan = loan or self._loan(plan.bucket)
        loan.lent += lent
        self._last += 1
        loan.lessons += 1
        self._plans[self._last] = plan, loan
        board = self._pins.board
        lesson = Lesson(self._last, plan.wire, until, plan.closes, loan.number, board.generation, *pin)
        self._taught[id(plan)] = lesson
        return lesson, lent

    def knows(self, plan: Plan) -> bool:
        """Whether it was taught that, and that is still true."""
        lesson = self._taught.get(id(plan))
        return lesson is not None and self._pins.board.holds(lesson.generation, lesson.slot, lesson.stamp)

    def more(self, number: int, now: float) -> int:
        """How many more answers are lent."""
        loan = self._loans.get(number)
        if loan is None:
            return 0
        lent = loan.bucket.lend(_LENT, now)
        loan.lent += lent
        return lent

    def count(self, counted: Counted, now: float) -> None:
        """Books the answers that were given by these lessons."""
        for number, count in counted:
            known = self._plans.get(number)
            if known is not None:
                plan = known[0]
                plan.entry.hits += count
                plan.entry.used_at = now
                self._bump(plan.cell, count)

    def settle(self, number: int, used: int, unused: int, now: float) -> None:
        """Of what was lent so many were used, and so many come back."""
        loan = self._loans.get(number)
        if loan is not None:
            loan.bucket.settle(used + unused, unused, now)
            loan.lent -= used + unused
            self._drop(loan)

    def forget(self, number: int) -> None:
        """A lesson that answers no more."""
        known = self._plans.pop(number, None)
        if known is not None:
            plan, loan = known
            if (taught := self._taught.get(id(plan))) is not None and taught.number == number:
                del self._taught[id(plan)]
            loan.lessons -= 1
            self._drop(loan)

    def lost(self, now: float) -> None:
        """The worker is no more: what it had may have been used."""
        for loan in self._loans.values():
            loan.bucket.settle(loan.lent, 0, now)
        self._loans.clear()
        self._by_bucket.clear()
        self._plans.clear()
        self._taught.clear()

    def _loan(self, bucket: TokenBucket) -> _Loan:
        self._last += 1
        loan = self._loans[self._last] = self._by_bucket[id(bucket)] = _Loan(self._last, bucket)
        return loan

    def _drop(self, loan: _Loan) -> None:
        if not loan.lent and not loan.lessons:
            self._loans.pop(loan.number, None)
            self._by_bucket.pop(id(loan.bucket), None)
