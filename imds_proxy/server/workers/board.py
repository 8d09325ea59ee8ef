"""What the processes of one daemon see at once: a page of numbers that the main one writes and all read.

What was taught ends the moment that a number changes: no message is to be waited for. Made before the
processes are.
"""

from __future__ import annotations

import mmap
from collections.abc import Hashable

_STAMPS, _FAILURES, _BEATS = 8192, 4096, 64
_WORD = 8  # bytes; aligned ones are written and read whole


class Board:
    """`stamps[0]` is the generation: with another one all that was taught before has ended. Each other one is
    of one answer that is kept, and has ended where it is not the one that was taught with it.

    `failures` are times of clients' failed calls (seconds, CLOCK_BOOTTIME); clients may share one, and then
    each counts for both. `beats` are when each worker was last alive.
    """

    def __init__(self) -> None:
        page = memoryview(mmap.mmap(-1, (_STAMPS + _FAILURES + _BEATS) * _WORD))
        after = _STAMPS * _WORD, (_STAMPS + _FAILURES) * _WORD
        self.stamps = page[: after[0]].cast("Q")
        self.failures = page[after[0] : after[1]].cast("d")
        self.beats = page[after[1] :].cast("d")
        self._free = list(range(_STAMPS - 1, 0, -1))
        self._last = 0
        self.renew()

    @property
    def generation(self) -> int:
        """What is taught now is of this one."""
        return self.stamps[0]

    def renew(self) -> None:
        """All that was taught has ended."""
        self.stamps[0] = self._next()

    def pin(self) -> tuple[int, int] | None:
        """A place among the stamps and the stamp in it, for an answer; None where there are too many."""
        if not self._free:
            return None
        slot = self._free.pop()
        self.stamps[slot] = stamp = self._next()
        return slot, stamp

    def unpin(self, slot: int) -> None:
        """That answer has ended."""
        self.stamps[slot] = 0
        self._free.append(slot)

    def holds(self, generation: int, slot: int, stamp: int) -> bool:
        """Whether what was taught with these numbers has not ended."""
        return self.stamps[0] == generation and self.stamps[slot] == stamp

    def failed(self, client: Hashable, now: float) -> None:
        """A client's call failed."""
        self.failures[failure_slot(client)] = now

    def _next(self) -> int:
        self._last += 1
        return self._last


def failure_slot(client: Hashable) -> int:
    """The place of a client: the same in all processes that were forked from one, whose hashes agree."""
    return hash(client) % _FAILURES
