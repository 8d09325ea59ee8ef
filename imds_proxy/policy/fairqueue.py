"""A queue that is fair over callers: however much one asks, the others' turns come round. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """First come first served for each caller, one at a time from each in turn. Bounded in both ways."""

    def __init__(self, per_caller: int, total: int) -> None:
        self._per_caller, self._total = per_caller, total
        self._turns: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, caller: Hashable, item: Item) -> bool:
        """Adds an item; False when this caller's part, or the whole queue, is full."""
        waiting = self._turns.get(caller)
        if self._length >= self._total or (waiting is not None and len(waiting) >= self._per_caller):
            return False
        if waiting is None:
            waiting = self._turns[caller] = deque()
        waiting.append(item)
        self._length += 1
        return True

    def pop(self) -> Item | None:
        """The next item; its caller goes to the end of the round. None when the queue is empty."""
        if not self._turns:
            return None
        caller, waiting = next(iter(self._turns.items()))
        item = waiting.popleft()
        self._length -= 1
        if waiting:
            self._turns.move_to_end(caller)
        else:
            del self._turns[caller]
        return item

    def discard(self, caller: Hashable, item: Item) -> None:
        """Takes an item out whose waiter has gone; one that is not there is no error."""
        waiting = self._turns.get(caller)
        if waiting is None or item not in waiting:
            return
        waiting.remove(item)
        self._length -= 1
        if not waiting:
            del self._turns[caller]
