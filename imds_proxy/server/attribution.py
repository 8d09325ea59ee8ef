"""The look-up of callers, off the event loop where it could take long, and bounded.

Thin: `callers` finds out; here is only where and how long it may run.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from imds_proxy.callers.resolver import Resolver, Ticket
from imds_proxy.policy.caller import Caller, Identity

_THREADS = 2
_MAX_WAITING = 512
_PATIENCE = 0.3  # seconds; what is left of the caller's second is for its answer


class BoundedAttribution:
    """Names callers: at once for a process seen before, by a scan in a worker thread for a new one."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="attribution")
        self._waiting = 0
        self.unresolved = 0

    def begin(self, accepted: socket.socket, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        """The caller of a connection just accepted; `peer` is the loop's peername, which may be absent."""
        ticket = self._resolver.look_up(accepted, peer if isinstance(peer, tuple) else None)
        caller = self._resolver.resolve(ticket)
        if caller is None:
            if self._waiting < _MAX_WAITING:
                return self._scan(ticket)
            caller = self._give_up(ticket, "too many look-ups")
        self.unresolved += caller.why_unresolved is not None
        return caller

    def close(self) -> None:
        """Ends the threads (a scan takes a quarter of a second at most) and lets the kernel's socket go."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._resolver.close()

    async def _scan(self, ticket: Ticket) -> Caller:
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(self._threads, self._resolver.scan, ticket)
            done, _ = await asyncio.wait((work,), timeout=_PATIENCE)
            if done:
                caller = work.result()
            else:
                work.cancel()
                caller = self._give_up(ticket, "the look-up took too long")
        finally:
            self._waiting -= 1
        self.unresolved += caller.why_unresolved is not None
        return caller

    def _give_up(self, ticket: Ticket, why: str) -> Caller:
        return Caller(Identity(None, origin=ticket.origin), why_unresolved=why)
