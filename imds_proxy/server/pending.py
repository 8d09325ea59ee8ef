"""Answers that are on their way, and the times by which they have to be there.

Knows nothing of who brings an answer, or of whom it is for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from imds_proxy.errors import DEADLINE, Refused
from imds_proxy.protocol.responses import Answer
from imds_proxy.upstream.flight import follow


class Pending:
    """`bring` is called by whoever has the answer, and calls `told`, which whoever wants it sets before the
    event loop's next turn. To await it is a way to set that."""

    __slots__ = ("over", "told")

    def __init__(self) -> None:
        self.over = False
        self.told: Callable[[Answer], None] = _ignored

    def bring(self, answer: Answer) -> None:
        """The answer, once."""
        self.over = True
        self.told(answer)

    def __await__(self) -> Generator[Any, None, Answer]:
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.told = lambda answer: None if waiter.done() else waiter.set_result(answer)
        return waiter.__await__()


class Deadlines:
    """Tells when an answer is not there in time. One timer for all that wait equally long; `clock` gives
    seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: deque[tuple[float, Pending, Callable[[Refused], None]]] = deque()
        self._set = False

    def add(self, until: float, pending: Pending, late: Callable[[Refused], None]) -> None:
        """`late` is called at `until` unless it is over by then, with what is to be said."""
        waiting = self._waiting
        while waiting and waiting[0][1].over:
            waiting.popleft()
        if waiting and until < waiting[-1][0]:  # one that has waited before: a timer of its own
            later = Deadlines(self._clock)
            later.add(until, pending, late)
            return
        waiting.append((until, pending, late))
        if not self._set:
            self._wait(until)

    def _wait(self, until: float) -> None:
        self._set = True
        asyncio.get_running_loop().call_later(max(0.0, until - self._clock()), self._look)

    def _look(self) -> None:
        now, waiting = self._clock(), self._waiting
        try:
            while waiting and (waiting[0][1].over or waiting[0][0] <= now):
                _, pending, late = waiting.popleft()
                if not pending.over:
                    late(Refused(DEADLINE))  # who is told may add the next
        finally:
            self._set = False
            if waiting:
                self._wait(waiting[0][0])


def following(work: Coroutine[Any, Any, Answer]) -> Pending:
    """Brings what a coroutine returns."""
    pending = Pending()
    follow(work, lambda answer: pending.bring(answer) if isinstance(answer, Answer) else None)
    return pending


def _ignored(_: Answer) -> None:
    """Nobody wants it yet."""
