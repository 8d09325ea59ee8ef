"""The look-up of callers, off the event loop where it could take long, and bounded.

Thin: `callers` finds out; here is only where and how long it may run.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from imds_proxy.callers.capture import Captured
from imds_proxy.callers.resolver import Resolver
from imds_proxy.callers.sockdiag import Endpoint
from imds_proxy.callers.ticket import Ticket
from imds_proxy.errors import SHARED_SOCKET, Refused
from imds_proxy.policy.caller import Caller

_THREADS = 2
_MAX_WAITING = 512
_SWITCH_INTERVAL = 0.0002  # seconds
_NICE = -15
_PATIENCE = 0.3  # seconds; what is left of the caller's second is for its answer


def look_before_they_leave() -> None:
    """Puts this process before ordinary ones, where it may: a caller that exits within milliseconds of its
    request is otherwise gone before it is looked at whenever the machine is busy (measured at a load of
    14 on two cores: half of such callers had no name, now one in twenty-five). To be called before threads
    are begun, which inherit it."""
    with suppress(OSError):  # without CAP_SYS_NICE; the unit sets it too
        os.setpriority(os.PRIO_PROCESS, 0, min(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))


class BoundedAttribution:
    """Names callers: at once for a process seen before, by a scan in a worker thread for a new one."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        # The loop must look at a new caller before it exits: it cannot wait 5 ms for a thread to yield.
        sys.setswitchinterval(_SWITCH_INTERVAL)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="attribution")
        self._waiting = 0
        self._tending: Future[None] | None = None
        self._watched: tuple[frozenset[str], bool] = (frozenset(), False)
        self.unresolved = 0
        self.epoch = 0  # callers that were named in an earlier one are to be named again

    @property
    def notes(self) -> int | None:
        """The descriptor of the map of the kernel's notes, where there is one."""
        return self._resolver.notes.map if self._resolver.notes is not None else None

    @property
    def watched(self) -> tuple[frozenset[str], bool]:
        """What `watch` was told last."""
        return self._watched

    def familiar(self, accepted: int, peer: bytes, local: bytes | None) -> Caller | None:
        """The caller of a connection just accepted, if it is one that connects again (see
        `callers.familiar`)."""
        familiar = self._resolver.familiar
        return None if familiar is None else familiar.of(accepted, peer, local)

    def begin(self, accepted: socket.socket, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        """The caller of a connection just accepted; `peer` is its name, which may be absent."""
        return self._begin(self._resolver.look_up(accepted, peer if isinstance(peer, tuple) else None))

    def begin_with(self, client: Endpoint, destination: Endpoint) -> Caller | Coroutine[Any, Any, Caller]:
        """The same for a connection between these two, which need not be one of ours."""
        return self._begin(self._resolver.look_up_ends(client, destination))

    def _begin(self, ticket: Ticket) -> Caller | Coroutine[Any, Any, Caller]:
        caller = self._resolver.resolve(ticket)
        if caller is None:
            if self._waiting < _MAX_WAITING:
                return self._scan(ticket, self._resolver.capture(ticket))
            caller = self._resolver.without_a_look(ticket, "too many look-ups")
        self.unresolved += caller.why_unresolved is not None
        return caller

    async def holders(self, accepted: socket.socket, peer: object) -> tuple[Caller, ...]:
        """Every process that holds the caller's end of the connection, each under its own user.

        Raises Refused when that cannot be told; without the rights to look at other users' processes only
        those that may be looked at count (the start says so).
        """
        if self._waiting >= _MAX_WAITING:
            raise Refused(SHARED_SOCKET, "too many look-ups")
        self._waiting += 1
        try:
            name = peer if isinstance(peer, tuple) else None
            work = asyncio.get_running_loop().run_in_executor(
                self._threads, self._resolver.holders, accepted, name
            )
            return await asyncio.wait_for(work, _PATIENCE)
        except (TimeoutError, asyncio.TimeoutError):
            raise Refused(SHARED_SOCKET, "the look-up took too long") from None
        finally:
            self._waiting -= 1

    def process(self, pid: int) -> Caller:
        """A process as the caller that it would be. Blocks for a millisecond. Raises OSError."""
        return self._resolver.process(pid)

    def watch(self, executables: frozenset[str], hashed: bool) -> None:
        """Tells which executables rules name; callers that are known are looked at again."""
        if (executables, hashed) != self._watched:
            self._watched = (executables, hashed)
            self._resolver.watch(executables, hashed)
            self.epoch += 1

    def look_again(self) -> None:
        """What is known of pods has changed: callers that are known are looked at again."""
        self._resolver.forget()
        self.epoch += 1

    def tend(self) -> None:
        """To be called every second: keeps what is known of pods' networks true."""
        if self._resolver.follows_networks and (self._tending is None or self._tending.done()):
            self._tending = self._threads.submit(self._resolver.tend)

    def close(self) -> None:
        """Ends the threads (a scan takes a quarter of a second at most) and lets the kernel's socket go."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._resolver.close()

    async def _scan(self, ticket: Ticket, captured: Captured | None) -> Caller:
        self._waiting += 1
        try:
            job = self._threads.submit(self._resolver.scan, ticket, captured)
            work = asyncio.wrap_future(job)
            done, _ = await asyncio.wait((work,), timeout=_PATIENCE)
            if done:
                caller = work.result()
            else:
                if job.cancel() and captured is not None:  # it had not begun, so nobody else closes it
                    captured.view.close()
                caller = self._resolver.without_a_look(ticket, "the look-up took too long")
        finally:
            self._waiting -= 1
        self.unresolved += caller.why_unresolved is not None
        return caller
