"""Connections that a worker keeps open, as the register of all connections sees them.

They count to the limits like the daemon's own, and are closed to make room like them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from imds_proxy.server.connections import ConnectionRegister


class Seat:
    """One. It rests, always: what has to be waited for is the daemon's. `evicted` tells its worker."""

    idle = True

    def __init__(self, peer: object, evicted: Callable[[], None]) -> None:
        self.ends: tuple[object, object] = (peer, None)
        self._evicted = evicted

    def evict(self) -> None:
        """Closes it, to make room."""
        self._evicted()

    def check_times(self, now: float) -> None:
        """Its worker closes it when it was idle for long."""

    def drain(self) -> None:
        """It is recalled before."""

    def close_if_idle(self) -> None:
        """It is recalled before."""


class Seats:
    """Of one worker; `evict` tells it the number of a connection to be closed."""

    def __init__(self, register: Callable[[], ConnectionRegister[Any]], evict: Callable[[int], None]) -> None:
        self._register, self._evict = register, evict
        self._seats: dict[int, Seat] = {}

    def take(self, number: int, caller: Hashable, peer: object) -> None:
        """A connection stays open: it is counted, or closed where there are too many."""

        def evicted() -> None:
            self.free((number,))
            self._evict(number)

        register, seat = self._register(), Seat(peer, evicted)
        if not register.admit(seat):
            self._evict(number)
            return
        self._seats[number] = seat
        if not register.assign(seat, caller):
            evicted()

    def touch(self, numbers: Iterable[int]) -> None:
        """They were used lately."""
        for number in numbers:
            if number in self._seats:
                self._register().touch(self._seats[number])

    def free(self, numbers: Iterable[int]) -> None:
        """They are closed, or the daemon's."""
        for number in numbers:
            if (seat := self._seats.pop(number, None)) is not None:
                self._register().gone(seat)

    def free_all(self) -> None:
        """Their worker is no more."""
        self.free(list(self._seats))
