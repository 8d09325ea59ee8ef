"""Accepted connections: named at once, answered at once where that is possible, else given a transport.

One request on a connection of its own (curl, most SDKs) needs no transport, no task and no second turn of the
loop: it is read, known by heart, answered and closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from imds_proxy.policy.caller import Caller
from imds_proxy.server.connection import Arrival, CallerConnection
from imds_proxy.server.listener import Accepted
from imds_proxy.server.shared import Shared

_FIRST = 16384  # bytes of a first request
_AT_ONCE = 16384  # bytes of an answer that fit into any new connection's buffer
_NOW = socket.MSG_DONTWAIT


class Arrivals:
    """Takes batches of a `Listener`. `shared` is asked for each batch, since a reload makes another."""

    def __init__(self, shared: Callable[[], Shared]) -> None:
        self._shared = shared
        self._opening: set[asyncio.Task[Any]] = set()

    def welcome(self, batch: Sequence[Accepted]) -> None:
        """Names all before one is read: a caller that exits loses its name, and the others may still send."""
        shared = self._shared()
        begin = shared.attribution.begin
        for accepted, caller in [(one[0], begin(*one)) for one in batch]:
            data = b""
            if isinstance(caller, Caller):
                try:
                    data = accepted.recv(_FIRST, _NOW)
                except BlockingIOError:
                    pass
                except OSError:
                    accepted.close()
                    continue
                if data and _answer_at_once(accepted, data, caller, shared):
                    continue
            self._open(accepted, Arrival(caller, shared.attribution.epoch, data), shared)

    def _open(self, accepted: socket.socket, arrival: Arrival, shared: Shared) -> None:
        loop = asyncio.get_running_loop()
        opening = loop.create_task(
            loop.connect_accepted_socket(partial(CallerConnection, shared, arrival), accepted)
        )
        self._opening.add(opening)
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # it closed meanwhile


def _answer_at_once(accepted: socket.socket, data: bytes, caller: Caller, shared: Shared) -> bool:
    """Whether these bytes are one request that is known by heart and the last; then it is answered."""
    hosts = shared.hosts(accepted.getsockname())
    plan = shared.memory.of(caller, hosts, shared.attribution.epoch).plans.get(data)
    if plan is None or not plan.closes or len(plan.wire) > _AT_ONCE:
        return False
    answer = plan.answer(shared.clock(), shared.memory.failure_of(caller))
    if answer is None:
        return False
    with suppress(OSError):  # the caller left
        accepted.send(answer, _NOW)
    accepted.close()
    return True
