"""Accepted connections: named at once, answered at once where that is possible, else given a transport.

One request on a connection of its own (curl, most SDKs) needs no transport, no task and no second turn of the
loop: it is read, known by heart, answered and closed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from imds_proxy.policy.caller import Caller
from imds_proxy.server.connection import Arrival, CallerConnection
from imds_proxy.server.listener import Accepted
from imds_proxy.server.shared import Attribution, Shared

_FIRST = 4096  # bytes of a first request
_AT_ONCE = 4096  # bytes of an answer that fit into any new connection's buffer


class Arrivals:
    """Takes batches of a `Listener`. `shared` is asked for each batch, since a reload makes another."""

    def __init__(self, shared: Callable[[], Shared]) -> None:
        self._shared = shared
        self._opening: set[asyncio.Task[Any]] = set()

    def welcome(self, batch: Sequence[Accepted]) -> None:
        """Names all before one is read: a caller that exits loses its name, and the others may still send."""
        shared = self._shared()
        attribution = shared.attribution
        for accepted, caller in [(one, _named(one, attribution)) for one in batch]:
            data = b""
            if isinstance(caller, Caller):
                try:
                    data = os.read(accepted.number, _FIRST)
                except BlockingIOError:
                    pass  # nothing has come yet
                except OSError:
                    accepted.close()
                    continue
                else:
                    if _answered(accepted, data, caller, shared):
                        continue
            self._open(accepted, Arrival(caller, attribution.epoch, data), shared)

    def _open(self, accepted: Accepted, arrival: Arrival, shared: Shared) -> None:
        loop = asyncio.get_running_loop()
        opening = loop.create_task(
            loop.connect_accepted_socket(partial(CallerConnection, shared, arrival), accepted.socket)
        )
        self._opening.add(opening)
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # it closed meanwhile


def _named(accepted: Accepted, attribution: Attribution) -> Caller | Coroutine[Any, Any, Caller]:
    known = attribution.familiar(accepted.number, accepted.peer, accepted.local)
    if isinstance(known, Caller):
        return known
    return attribution.begin(accepted.socket, accepted.peername, known)


def _answered(accepted: Accepted, data: bytes, caller: Caller, shared: Shared) -> bool:
    """Whether these bytes are one request that is known by heart and the last; then it is answered."""
    hosts = shared.hosts(accepted.own_name)
    remembered, failure = shared.memory.met(caller, hosts, shared.attribution.epoch)
    plan = remembered.plans.get(data)
    if plan is None or not plan.closes or len(plan.wire) > _AT_ONCE:
        return False
    answer = plan.answer(shared.clock(), failure)
    if answer is None:
        return False
    with suppress(OSError):  # the caller left
        os.write(accepted.number, answer)
    accepted.close()
    return True
