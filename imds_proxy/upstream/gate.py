"""The gate before the real service: calls wait here for their turn and for the budget.

Ties the fair queue and the adaptive budget (policy) to the event loop; knows nothing of connections.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable

from cachetools import LRUCache

from imds_proxy.errors import BUSY, Refused
from imds_proxy.policy.bucket import TokenBucket
from imds_proxy.policy.budget import AdaptiveBudget
from imds_proxy.policy.fairqueue import FairQueue
from imds_proxy.policy.rules import Rate

OURS = "the proxy's own call, or a token that a caller waits for"
_PER_CALLER, _TOTAL = 256, 4096  # calls that wait
# A caller within this asks seldom: it is served from the part of the burst that is kept for such.
_SPARSE = Rate(2, 8)

_Turn = asyncio.Future[None]


class UpstreamGate:
    """Lets calls through at the budget's rate, fairly over callers. `clock` gives seconds, monotonic."""

    def __init__(self, rate: Rate, queue: float, clock: Callable[[], float]) -> None:
        """`queue` is how long a read waits at most (seconds)."""
        self._queue, self._clock = queue, clock
        self._budget = AdaptiveBudget(rate, clock())
        self._sparse: FairQueue[_Turn] = FairQueue(_PER_CALLER, _TOTAL)
        self._others: FairQueue[_Turn] = FairQueue(_PER_CALLER, _TOTAL)
        self._courtesy: LRUCache[Hashable, TokenBucket] = LRUCache(4096)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rate(self) -> float:
        """Calls per second that are let through at present."""
        return self._budget.rate

    def change(self, rate: Rate, queue: float) -> None:
        """Another budget from now on; who waits goes on waiting."""
        self._queue = queue
        self._budget.change(rate, self._clock())

    @property
    def is_free(self) -> bool:
        """Whether nobody has to wait for a turn now."""
        if len(self._sparse) or len(self._others):
            return False
        return self._budget.wait(self._clock(), sparse=False) <= 0

    def take(self) -> None:
        """A turn, while the gate `is_free`."""
        self._budget.take(self._clock())

    async def turn(self, caller: Hashable, until: float) -> None:
        """Waits for the caller's turn, until `until` at most (a read: no longer than the queue allows).

        Raises Refused(busy) with the time after which it is worth to try again.
        """
        now = self._clock()
        until = until if caller == OURS else min(until, now + self._queue)
        queue = self._sparse if self._asks_seldom(caller, now) else self._others
        turn: _Turn = asyncio.get_running_loop().create_future()
        if not queue.push(caller, turn):
            raise self._busy("too many of this caller's calls wait")
        self._let_through()
        if turn.done():
            return
        try:
            done, _ = await asyncio.wait((turn,), timeout=max(0.0, until - now))
        finally:
            if not turn.done():
                turn.cancel()
                queue.discard(caller, turn)
        if not done:
            raise self._busy("its turn did not come within limits.queue")

    def overloaded(self, sent_at: float, retry_after: float | None = None) -> None:
        """The service refused a call for its load, or did not answer it in time."""
        self._budget.overloaded(sent_at, self._clock(), retry_after)

    def _asks_seldom(self, caller: Hashable, now: float) -> bool:
        if caller == OURS:
            return True
        bucket = self._courtesy.get(caller)
        if bucket is None:
            bucket = self._courtesy[caller] = TokenBucket(_SPARSE.per_second, _SPARSE.burst, now)
        return bucket.take(now)

    def _busy(self, why: str) -> Refused:
        wait = self._budget.wait(self._clock(), sparse=False)
        return Refused(BUSY, why, retry_after=max(1, math.ceil(wait)))

    def _let_through(self) -> None:
        """Lets go whoever may go, and comes back when the next one may."""
        while True:
            now = self._clock()
            queue = self._sparse if len(self._sparse) else self._others
            if not len(queue):
                return
            wait = self._budget.wait(now, sparse=queue is self._sparse)
            if wait > 0:
                self._come_back(wait)
                return
            turn = queue.pop()
            if turn is not None and not turn.done():
                self._budget.take(now)
                turn.set_result(None)

    def _come_back(self, wait: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait, self._let_through)
