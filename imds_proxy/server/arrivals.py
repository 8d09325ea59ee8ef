"""Accepted connections: named at once, answered without a transport where that is possible, else given one.

One request on a connection of its own (curl, most SDKs) needs no transport and no task: it is read, known
by heart, answered and closed, in the turn that accepts it or when its bytes come. Whatever else comes, or
nothing for a moment, makes an ordinary connection of it.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from imds_proxy.policy.caller import Caller
from imds_proxy.server.arrival import Arrival, Back
from imds_proxy.server.connection import CallerConnection
from imds_proxy.server.listener import Accepted, read_now
from imds_proxy.server.shared import Attribution, Shared

_FIRST = 4096  # bytes of a request; what is known by heart is shorter
_AT_ONCE = 4096  # bytes of an answer that fit into any new connection's buffer
_MOMENT = 0.05  # seconds, at most twice
_MOST = 1024  # that wait without a transport; these count to no limit of connections
_READABLE = select.EPOLLIN | select.EPOLLRDHUP


class _Guest:
    """A connection without a transport: whose, since which naming, and whether it said nothing lately."""

    __slots__ = ("accepted", "caller", "epoch", "shared", "silent")

    def __init__(self, accepted: Accepted, caller: Caller, shared: Shared) -> None:
        self.accepted, self.caller, self.shared = accepted, caller, shared
        self.epoch, self.silent = shared.attribution.epoch, False


class Arrivals:
    """Takes batches of a `Listener`. `shared` is asked for each batch, since a reload makes another. To be
    made where a loop runs."""

    def __init__(self, shared: Callable[[], Shared]) -> None:
        self._shared = shared
        self._opening: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        # One descriptor for the loop, whoever waits: to wait costs a connection one system call.
        self._epoll = select.epoll()
        self._guests: dict[int, _Guest] = {}
        self._most = _MOST
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._epoll.fileno(), self._readable)

    def welcome(self, batch: Sequence[Accepted]) -> None:
        """Names all before one is read: a caller that exits, or becomes another program, is named as what it
        was; and the others may still send."""
        shared = self._shared()
        for accepted, caller in [(one, _named(one, shared.attribution)) for one in batch]:
            if isinstance(caller, Caller):
                self._serve(_Guest(accepted, caller, shared))
            else:
                self._open(accepted, caller, shared.attribution.epoch, b"", shared)

    def adopt(
        self,
        accepted: Accepted,
        caller: Caller,
        epoch: int,
        data: bytes,
        owed: bytes,
        back: Back | None,
    ) -> bool:
        """Goes on with a connection that another process accepted, named and read (see `Arrival`). True:
        it has its answer, by heart, and rests: who takes it not `back` calls `stay`."""
        shared = self._shared()
        guest = _Guest(accepted, caller, shared)
        guest.epoch = epoch
        closes = _answered(guest, data) if data and not owed else None
        if closes is None:
            self._open(accepted, caller, epoch, data, shared, owed, back)
        elif closes:
            accepted.close()
        return closes is False

    def stay(self, accepted: Accepted, caller: Caller, epoch: int, back: Back) -> None:
        """Keeps a connection that rests."""
        self._open(accepted, caller, epoch, b"", self._shared(), b"", back)

    def close(self) -> None:
        """From now on all are ordinary connections, also those that wait: a drain knows no others."""
        self._most = 0
        for guest in list(self._guests.values()):
            self._hand_over(guest, b"")

    def peers(self) -> list[object]:
        """The callers' ends of connections without a transport."""
        return [guest.accepted.peername for guest in self._guests.values()]

    async def settle(self) -> None:
        """Makes ordinary connections of all that have come so far, and waits until they are."""
        for guest in list(self._guests.values()):
            self._hand_over(guest, b"")
        while self._opening:
            await asyncio.wait(self._opening)

    def _serve(self, guest: _Guest) -> None:
        accepted = guest.accepted
        data = read_now(accepted.number, _FIRST)
        if data is None:
            self._keep(guest)
            return
        if not data:
            self._close(accepted)
            return
        closes = _answered(guest, data)
        if closes is None:
            self._hand_over(guest, data)
        elif closes:
            self._close(accepted)
        else:
            self._keep(guest)

    def _keep(self, guest: _Guest) -> None:
        """Until more comes, or a moment has gone."""
        number = guest.accepted.number
        guest.silent = False
        if number in self._guests:
            return
        if len(self._guests) >= self._most:
            self._hand_over(guest, b"")
            return
        self._guests[number] = guest
        self._epoll.register(number, _READABLE)
        if self._timer is None:
            self._timer = self._loop.call_later(_MOMENT, self._look_round)

    def _readable(self) -> None:
        for number, _ in self._epoll.poll(0):
            self._serve(self._guests[number])

    def _look_round(self) -> None:
        """Makes ordinary connections of those that said nothing since the last look."""
        for guest in [one for one in self._guests.values() if one.silent]:
            self._hand_over(guest, b"")
        for guest in self._guests.values():
            guest.silent = True
        self._timer = self._loop.call_later(_MOMENT, self._look_round) if self._guests else None

    def _close(self, accepted: Accepted) -> None:
        self._guests.pop(accepted.number, None)
        accepted.close()  # which takes it out of the epoll too

    def _hand_over(self, guest: _Guest, data: bytes) -> None:
        if self._guests.pop(guest.accepted.number, None) is not None:
            self._epoll.unregister(guest.accepted.number)
        self._open(guest.accepted, guest.caller, guest.epoch, data, guest.shared)

    def _open(
        self,
        accepted: Accepted,
        caller: Caller | Coroutine[Any, Any, Caller],
        epoch: int,
        data: bytes,
        shared: Shared,
        owed: bytes = b"",
        back: Back | None = None,
    ) -> None:
        try:
            ends = accepted.peername, accepted.own_name
        except OSError:  # it is gone
            accepted.close()
            if not isinstance(caller, Caller):
                caller.close()
            return
        arrival = Arrival(caller, epoch, data, ends, owed, back)
        connect = self._loop.connect_accepted_socket(
            partial(CallerConnection, shared, arrival), accepted.socket
        )
        self._opening.add(opening := self._loop.create_task(connect))
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # it closed meanwhile


def _named(accepted: Accepted, attribution: Attribution) -> Caller | Coroutine[Any, Any, Caller]:
    known = attribution.familiar(accepted.number, accepted.peer, accepted.local)
    return known if known is not None else attribution.begin(accepted.socket, accepted.peername)


def _answered(guest: _Guest, data: bytes) -> bool | None:
    """Whether the connection is over after the answer to these bytes, which are one request known by heart;
    None where they are not."""
    shared = guest.shared
    try:
        hosts = shared.hosts(guest.accepted.own_name)
    except OSError:
        return True  # it is gone
    if guest.epoch != shared.attribution.epoch:
        return None
    remembered, failure = shared.memory.met(guest.caller, hosts, guest.epoch)
    plan = remembered.plans.get(data)
    if plan is None or len(plan.wire) > _AT_ONCE:
        return None
    answer = plan.answer(shared.clock(), failure)
    if answer is None:
        return None
    number = guest.accepted.number
    try:
        sent = os.write(number, answer)
    except OSError:  # the caller left
        return True
    return plan.closes or sent != len(answer)
