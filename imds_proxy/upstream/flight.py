"""Single flight: however many wait, one goes.

A waiter that leaves does not cancel the others; an error reaches all and is remembered by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from imds_proxy.errors import DEADLINE, Refused

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Shares one running task for each key."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    def join(self, key: Hashable, start: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """The running task for `key`, started by `start` if there is none."""
        flight = self._flights.get(key)
        if flight is None:

            async def run() -> T:
                return await start()

            flight = self._flights[key] = asyncio.get_running_loop().create_task(run())
            flight.add_done_callback(lambda task: self._land(key, task))
        return flight

    def _land(self, key: Hashable, task: asyncio.Task[T]) -> None:
        self._flights.pop(key, None)
        if not task.cancelled():
            task.exception()  # nobody may be left to look at it


async def wait_until(task: asyncio.Task[T], seconds: float) -> T:
    """The task's result; after `seconds` raises Refused(deadline) while the task goes on."""
    done, _ = await asyncio.wait((task,), timeout=max(0.0, seconds))
    if not done:
        raise Refused(DEADLINE)
    return task.result()
