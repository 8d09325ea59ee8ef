"""Single flight: however many wait, one goes, as soon as the turn of any of them has come.

A waiter that leaves does not cancel the others; an error reaches all and is remembered by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from imds_proxy.errors import DEADLINE, Refused
from imds_proxy.upstream.gate import UpstreamGate

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Shares one running task for each key, or what somebody else will tell."""

    def __init__(self) -> None:
        # None: nobody has joined it yet.
        self._flights: dict[Hashable, asyncio.Future[T] | None] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    def join(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """The running task for `key`, started by `start` if there is none."""
        flight = self._flights.get(key)
        if flight is None and key in self._flights:
            flight = self._flights[key] = asyncio.get_running_loop().create_future()
        if flight is None:
            flight = self._flights[key] = asyncio.get_running_loop().create_task(start())
            flight.add_done_callback(lambda task: self._land(key, task))
        return flight

    def begin(self, key: Hashable) -> None:
        """A flight without a task: whoever begins it ends it."""
        self._flights[key] = None

    def end(self, key: Hashable, result: T | Exception) -> None:
        """Tells all who joined what came of a flight that was begun."""
        flight = self._flights.pop(key)
        if flight is None:
            return
        if isinstance(result, Exception):
            flight.set_exception(result)
            flight.exception()  # who joined may have left
        else:
            flight.set_result(result)

    def _land(self, key: Hashable, task: asyncio.Future[T]) -> None:
        self._flights.pop(key, None)
        look_at(task)


class FairFlight(Generic[T]):
    """A single flight that begins at the first turn of those who wait for it: a caller whose turn is far
    away holds up nobody else who asks for the same."""

    def __init__(self, gate: UpstreamGate) -> None:
        self._gate = gate
        self._flights: SingleFlight[T] = SingleFlight()
        self._begun: dict[Hashable, tuple[asyncio.Future[None], set[object]]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    def may_begin(self, key: Hashable) -> bool:
        """Whether a flight could begin now: nobody is in one or waits for one, and no turn has to be waited
        for."""
        return key not in self._flights and key not in self._begun and self._gate.is_free

    def begin(self, key: Hashable) -> None:
        """Begins a flight that may; whoever begins it ends it."""
        self._gate.take()
        self._flights.begin(key)

    def end(self, key: Hashable, result: T | Exception) -> None:
        """See `SingleFlight.end`."""
        self._flights.end(key, result)

    async def join(
        self, key: Hashable, caller: Hashable, until: float, start: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """The result of the flight for `key`. Raises Refused(busy) when it did not begin in this caller's
        time, which ends at `until` at the latest, and whatever the flight itself raises."""
        if self.may_begin(key):
            self._gate.take()
        elif key not in self._flights:
            await self._turn_or_flight(key, caller, until)
        return await asyncio.shield(self._flights.join(key, start))

    async def _turn_or_flight(self, key: Hashable, caller: Hashable, until: float) -> None:
        loop = asyncio.get_running_loop()
        entry = self._begun.setdefault(key, (loop.create_future(), set()))
        begun, waiting = entry
        turn = loop.create_task(self._gate.turn(caller, until))
        turn.add_done_callback(look_at)
        waiting.add(turn)
        try:
            await asyncio.wait((turn, begun), return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                turn.result()
                begun.set_result(None)
        finally:
            turn.cancel()
            waiting.discard(turn)
            if (begun.done() or not waiting) and self._begun.get(key) is entry:
                del self._begun[key]


async def wait_until(task: asyncio.Future[T], seconds: float) -> T:
    """The task's result; after `seconds` raises Refused(deadline) while the task goes on."""
    if not task.done():
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def wake(_: object = None) -> None:
            if not woken.done():
                woken.set_result(None)

        timer = loop.call_later(max(0.0, seconds), wake)
        task.add_done_callback(wake)
        try:
            await woken
        finally:
            timer.cancel()
            task.remove_done_callback(wake)
    if not task.done():
        raise Refused(DEADLINE)
    return task.result()


def follow(work: Coroutine[Any, Any, T], told: Callable[[T | Exception], None]) -> None:
    """Does what has to be waited for; `told` gets its result, or the error that it ended with."""

    def over(task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            error = task.exception()
            told(error if isinstance(error, Exception) else task.result())

    asyncio.get_running_loop().create_task(work).add_done_callback(over)


def look_at(task: asyncio.Future[Any]) -> None:
    """For a task of which nobody may be left to look at its error."""
    if not task.cancelled():
        task.exception()
