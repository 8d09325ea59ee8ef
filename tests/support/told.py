"""What is told by a callback, awaited; and a pool asked by it, or by a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from imds_proxy.upstream.exchange import UpstreamAnswer
from imds_proxy.upstream.pool import Pool

T = TypeVar("T")
HEADERS = ((b"Host", b"100.100.100.200"),)
Fetch = Callable[[Pool, str], Awaitable[UpstreamAnswer]]


class Ear:
    """To be told what came of a question, once."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self._waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self, result: Any) -> None:
        self.heard.append(result)
        if not self._waiter.done():
            self._waiter.set_result(None)

    async def hear(self) -> Any:
        """What was told. Raises it where it is an error, and AssertionError where it was told twice."""
        await self._waiter
        await asyncio.sleep(0)
        (result,) = self.heard
        if isinstance(result, Exception):
            raise result
        return result


async def told(ask: Callable[[Ear], None]) -> Any:
    """What `ask` tells, which must not be before it returns."""
    ear = Ear()
    ask(ear)
    assert not ear.heard
    return await ear.hear()


async def by_task(pool: Pool, target: str = "/a") -> UpstreamAnswer:
    """A GET whose turn was taken, as a task."""
    return await pool.get("GET", target, HEADERS, paid=True)


async def by_callback(pool: Pool, target: str = "/a") -> UpstreamAnswer:
    """The same by a callback where a connection is there or will be, as in the first of all calls here."""
    if not pool.ready and not pool._open:
        pool._idle.append(await pool._dial())
    if not pool.ready:
        return await by_task(pool, target)
    answer: UpstreamAnswer = await told(partial(pool.ask, target, HEADERS))
    return answer
