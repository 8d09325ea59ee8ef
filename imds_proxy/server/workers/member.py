"""One worker, as the daemon sees it: what it hands over, is taught and lent, counts, and keeps open.

A connection that it hands over goes on as an ordinary one, and is given back once it rests on what is known
by heart.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from imds_proxy.policy.caller import Caller
from imds_proxy.server.arrival import Resting
from imds_proxy.server.arrivals import Arrivals
from imds_proxy.server.build import Daemon
from imds_proxy.server.listener import Accepted
from imds_proxy.server.plans import Failure, Plan
from imds_proxy.server.workers.channel import Channel, Message
from imds_proxy.server.workers.learnt import Lesson
from imds_proxy.server.workers.lessons import Lessons, Pins
from imds_proxy.server.workers.seats import Seats

_CHUNK = 16  # lessons in a message
_TRIES = 3  # turns of the loop in which an answer may still be on its way


class House(Protocol):
    """What all workers share: the daemon in force, what takes connections, the board's pins, the clock, and
    whether all are to leave."""

    arrivals: Arrivals
    pins: Pins
    daemon: Callable[[], Daemon]
    clock: Callable[[], float]
    leaving: bool

    def begun(self, member: Member) -> None:
        """It can be told what to do."""

    def ended(self, member: Member) -> None:
        """It is no more."""


class Member:
    """`place` is its own among the workers. To be made where a loop runs."""

    def __init__(self, house: House, place: int, wire: socket.socket) -> None:
        self._house, self.place, self.born = house, place, house.clock()
        self.pid: int | None = None  # known once it is ready
        self.recalled = asyncio.Event()
        self.gone = asyncio.Event()
        self.lessons = Lessons(house.pins, house.daemon().events.bump)
        self._channel = Channel(wire, self._heard, self._ended)
        self._seats = Seats(lambda: house.daemon().shared.register, self._evict)

    @property
    def ready(self) -> bool:
        """Whether it has begun."""
        return self.pid is not None

    def configure(self, idle: float) -> None:
        """Tells how callers are named now, and after how many seconds an idle connection is closed."""
        attribution = self._house.daemon().attribution
        notes = os.dup(attribution.notes) if attribution.notes is not None else None
        self._channel.send(("config", attribution.epoch, attribution.watched, idle), notes)

    def listen(self, number: int, on: bool) -> None:
        """It is to accept from the listening socket of that number, or no more."""
        self._channel.send(("listen", number, on))

    def recall(self) -> None:
        """It is to hand over all connections; `recalled` says when it has."""
        self.recalled.clear()
        self._channel.send(("recall",))

    def leave(self) -> None:
        """It is to hand over all, tell all, and end."""
        self._channel.send(("leave",))

    def _evict(self, seat: int) -> None:
        self._channel.send(("evict", seat))

    def _ended(self) -> None:
        self.gone.set()
        self.lessons.lost(self._house.clock())
        self._seats.free_all()
        self.recalled.set()
        self._house.ended(self)

    def _heard(self, message: Message, descriptor: int | None) -> None:
        word, rest, now = message[0], message[1:], self._house.clock()
        if word == "hand" and descriptor is not None:
            self._handed(descriptor, *rest)
        elif word == "account":
            self._account(now, *rest)
        elif word == "seats":
            for number, caller, peer in rest[0]:
                self._seats.take(number, caller, Accepted(-1, peer, None).peername)
        elif word == "more":
            self._channel.send(("grant", rest[0], self.lessons.more(rest[0], now)))
        elif word == "ready":
            self.pid = rest[0]
            self._house.begun(self)
        elif word == "recalled":
            self.recalled.set()

    def _account(
        self,
        now: float,
        counted: list[tuple[int, int]],
        settled: list[tuple[int, int, int]],
        forgotten: list[int],
        touched: list[int],
        gone: list[int],
        unresolved: int,
    ) -> None:
        self.lessons.count(counted, now)
        for loan in settled:
            self.lessons.settle(*loan, now)
        for number in forgotten:
            self.lessons.forget(number)
        self._seats.touch(touched)
        self._seats.free(gone)
        self._house.daemon().attribution.unresolved += unresolved

    def _handed(
        self,
        descriptor: int,
        seat: int,
        caller: Caller,
        epoch: int,
        ends: tuple[bytes, bytes | None],
        data: bytes,
        owed: bytes,
        short: bool,
        worth: bool,
    ) -> None:
        self._seats.free((seat,))
        if caller.process is not None and caller.process.pid == os.getpid():
            caller = replace(caller, is_self=True)  # to the worker it is another process
        accepted = Accepted(descriptor, *ends)
        try:
            own = accepted.own_name
        except OSError:  # it is gone
            accepted.close()
            return
        back = partial(self._rests, ends[0], own, worth)
        rests = self._house.arrivals.adopt(accepted, caller, epoch, data, owed, back)
        taught = bool(data) and not self._house.leaving and self._teach(caller, own, epoch, data, short)
        if rests and taught and worth:
            self._give(accepted.detach(), caller, epoch, ends[0])
        elif rests:
            self._house.arrivals.stay(accepted, caller, epoch, back)

    def _teach(
        self, caller: Caller, own: tuple[object, ...], epoch: int, head: bytes, short: bool = False
    ) -> bool:
        """Whether the worker can answer the head now. It is taught what the daemon knows by heart for callers
        like this one; the answers that are lent go before. `short`: it has none left."""
        shared = self._house.daemon().shared
        if epoch != shared.attribution.epoch:
            return False
        remembered, failure = (
            shared.memory.of(caller, shared.hosts(own), epoch),
            shared.memory.failure_of(caller),
        )
        plan = remembered.plans.get(head)
        lessons: list[tuple[bytes, Lesson]] = []
        if plan is None or not self._make((head, plan), failure, short=short, lessons=lessons):
            return False
        for other in remembered.plans.items():
            if not self.lessons.knows(other[1]):
                self._make(other, failure, short=False, lessons=lessons)
        for start in range(0, len(lessons), _CHUNK):
            self._channel.send(("teach", caller, own[:2], epoch, lessons[start : start + _CHUNK]))
        return True

    def _make(
        self,
        known: tuple[bytes, Plan],
        failure: Failure,
        *,
        short: bool,
        lessons: list[tuple[bytes, Lesson]],
    ) -> bool:
        """Whether there is a lesson of it, which is added."""
        head, plan = known
        made = self.lessons.make(plan, failure, self._house.clock(), short)
        if made is None:
            return False
        lesson, lent = made
        lessons.append((head, lesson))
        if lent:
            self._channel.send(("grant", lesson.lease, lent))
        return True

    def _give(self, number: int, caller: Caller, epoch: int, peer: bytes) -> None:
        self._channel.send(("back", caller, epoch, peer), number)

    def _rests(
        self,
        peer: bytes,
        own: tuple[object, ...],
        worth: bool,
        connection: Resting,
        caller: Caller,
        head: bytes,
        by_heart: bool,
    ) -> None:
        """A connection that was handed over rests: soon, when its answer has been sent, it may go back."""
        if worth or by_heart:
            epoch = self._house.daemon().attribution.epoch
            leave = partial(self._take_leave, peer, own, connection, (caller, head), epoch)
            asyncio.get_running_loop().call_soon(leave, _TRIES)

    def _take_leave(
        self,
        peer: bytes,
        own: tuple[object, ...],
        connection: Resting,
        last: tuple[Caller, bytes],
        epoch: int,
        tries: int,
    ) -> None:
        house, (caller, head) = self._house, last
        if house.leaving or self.gone.is_set() or epoch != house.daemon().attribution.epoch:
            return
        if tries == _TRIES and not self._teach(caller, own, epoch, head):
            return
        number = connection.leave()
        if number is not None:
            self._give(number, caller, epoch, peer)
        elif tries:
            again = partial(self._take_leave, peer, own, connection, last, epoch, tries - 1)
            asyncio.get_running_loop().call_soon(again)
