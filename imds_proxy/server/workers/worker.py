"""A worker: accepts, names and reads like the daemon, and answers what it was taught; all else it hands over.

It owns nothing: what it counts, what it may give and whom it keeps open is told to the daemon (see `crew`).
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.connects import ConnectNotes
from imds_proxy.callers.resolver import Resolver
from imds_proxy.policy.caller import Caller
from imds_proxy.server.attribution import BoundedAttribution
from imds_proxy.server.build import boottime
from imds_proxy.server.eventloop import run_loop
from imds_proxy.server.listener import Accepted, Listener, read_now
from imds_proxy.server.memory import client_of
from imds_proxy.server.workers.board import Board, failure_slot
from imds_proxy.server.workers.channel import Channel, Message
from imds_proxy.server.workers.learnt import Account, Kind, Knowledge, Lease, Lesson

_FIRST = 4096  # bytes of a request; what is known by heart is shorter
_ACCOUNT = 0.2  # seconds: a worker that is killed loses what it counted since
_MOMENT = 0.02  # seconds; a connection that stays for one, or two, is told to the daemon
_PATIENCE = 4  # answers that make it worth to have a connection back once more
_TOUCHES, _SWEEP = 5, 5  # accounts
_CHUNK = 2000  # of a list, in a message
Watched = tuple[frozenset[str], bool]
"""As `BoundedAttribution.watch` takes it."""

Lessons = Sequence[tuple[bytes, Lesson]]
"""Each with its head."""

_READABLE = select.EPOLLIN | select.EPOLLRDHUP


class _Guest:
    """A connection: whose, named when, how many requests were answered here since it was `given` by the
    daemon or came, the last when; `seat` is its number where the daemon knows of it."""

    __slots__ = (
        *("accepted", "at", "caller", "epoch", "failure", "given"),
        *("kind", "number", "seat", "served", "touched"),
    )

    def __init__(self, accepted: Accepted, caller: Caller, epoch: int, kind: Kind, now: float) -> None:
        self.accepted, self.caller, self.epoch, self.kind = accepted, caller, epoch, kind
        self.number, self.failure = accepted.number, failure_slot(client_of(caller))
        self.at, self.served, self.seat, self.touched, self.given = now, 0, 0, False, False


class Worker:
    """To be made where a loop runs. `ended` is called when it has left."""

    def __init__(
        self,
        place: int,
        wire: socket.socket,
        sockets: Sequence[socket.socket],
        board: Board,
        ended: Callable[[], None],
    ) -> None:
        self._place, self._sockets, self._board, self._ended = place, sockets, board, ended
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(wire, self._heard, lambda: os._exit(0))  # without a daemon there is no worker
        self._known = Knowledge(board.stamps)
        self._takes, self._failures = self._known.takes, board.failures
        self._attribution: BoundedAttribution | None = None
        self._epoch, self._idle, self._unresolved = 0, 60.0, 0
        self._listeners: dict[int, Listener] = {}
        self._epoll = select.epoll()
        self._guests: dict[int, _Guest] = {}
        self._seats: dict[int, _Guest] = {}
        self._gone: list[int] = []
        self._last_seat = self._accounts = 0
        self._fresh: tuple[list[_Guest], list[_Guest]] = ([], [])
        self._naming: set[asyncio.Task[None]] = set()
        self._looking = False
        self._loop.add_reader(self._epoll.fileno(), self._readable)
        self._channel.send(("ready", os.getpid()))
        self._beat()

    # What the daemon says.

    def _heard(self, message: Message, descriptor: int | None) -> None:
        word, rest = message[0], message[1:]
        if word == "teach":
            self._learn(*rest)
        elif word == "grant":
            self._known.grant(*rest)
        elif word == "back" and descriptor is not None:
            self._take_back(descriptor, *rest)
        elif word == "evict":
            guest = self._seats.get(rest[0])
            if guest is not None:
                self._close(guest)
        elif word == "config":
            self._configure(descriptor, *rest)
        elif word == "listen":
            self._listen(*rest)
        elif word == "recall":
            self._ending = self._loop.create_task(self._recall())
        elif word == "leave":
            self._ending = self._loop.create_task(self._leave())

    def _configure(self, notes: int | None, epoch: int, watched: Watched, idle: float) -> None:
        """Callers that were named before are named again: by the daemon, when they ask for something."""
        if self._attribution is None:
            map_of_notes = ConnectNotes([notes]) if notes is not None else None
            self._attribution = BoundedAttribution(Resolver(tree=CgroupTree.find(), notes=map_of_notes))
        self._attribution.watch(*watched)
        self._idle = idle
        self._epoch = self._attribution.epoch = epoch
        self._known.forget()

    def _listen(self, number: int, on: bool) -> None:
        if on:
            self._listeners[number] = Listener(self._sockets[number].dup(), self._welcome)
        elif (listener := self._listeners.pop(number, None)) is not None:
            listener.close()

    def _learn(self, caller: Caller, own: tuple[object, ...], epoch: int, lessons: Lessons) -> None:
        kind = self._known.kind_of(caller, own)
        for head, lesson in lessons:
            if epoch == self._epoch:
                self._known.learn(kind, head, lesson)
            else:
                self._known.refuse(lesson)

    def _take_back(self, descriptor: int, caller: Caller, epoch: int, peer: bytes) -> None:
        guest = self._guest(Accepted(descriptor, peer, None), caller, epoch)
        if guest is not None:
            guest.given = True
            self._keep(guest)

    # Who comes.

    def _welcome(self, batch: Sequence[Accepted]) -> None:
        """Names all before one is read, as the daemon does (see `Arrivals`)."""
        named = [(accepted, self._name(accepted)) for accepted in batch]
        epoch = self._epoch
        for accepted, caller in named:
            if isinstance(caller, Caller):
                if (guest := self._guest(accepted, caller, epoch)) is not None:
                    self._serve(guest)
            else:
                self._naming.add(task := self._loop.create_task(self._wait_for(accepted, caller, epoch)))
                task.add_done_callback(self._naming.discard)

    def _name(self, accepted: Accepted) -> Caller | Coroutine[Any, Any, Caller]:
        attribution = self._attribution
        if attribution is None:
            raise AssertionError("configured before it listens")
        known = attribution.familiar(accepted.number, accepted.peer, accepted.local)
        return known if known is not None else attribution.begin(accepted.socket, accepted.peername)

    async def _wait_for(self, accepted: Accepted, naming: Coroutine[Any, Any, Caller], epoch: int) -> None:
        caller = await naming
        if (guest := self._guest(accepted, caller, epoch)) is not None:
            self._serve(guest)

    def _guest(self, accepted: Accepted, caller: Caller, epoch: int) -> _Guest | None:
        try:
            own = accepted.own_name
        except OSError:  # it is gone
            accepted.close()
            return None
        return _Guest(accepted, caller, epoch, self._known.kind_of(caller, own), boottime())

    # What they ask.

    def _readable(self) -> None:
        for number, _ in self._epoll.poll(0):
            guest = self._guests.get(number)
            if guest is not None:
                self._serve(guest)

    def _serve(self, guest: _Guest) -> None:
        """The hot path: read, known, may be given, written."""
        number = guest.number
        data = read_now(number, _FIRST)
        if data is None:
            self._keep(guest)
            return
        if not data:
            self._close(guest)
            return
        learnt, now = guest.kind.plans.get(data), boottime()
        if learnt is None or not self._takes(learnt, now, self._failures[guest.failure]):
            worth = not guest.given or guest.served >= _PATIENCE
            self._hand_over(guest, data, short=learnt is not None and not learnt.lease.left, back=worth)
            return
        if learnt.lease.left < learnt.lease.low:
            self._ask_for_more(learnt.lease)
        wire = learnt.lesson.wire
        try:
            sent = os.write(number, wire)
        except BlockingIOError:
            sent = 0
        except OSError:  # the caller left, which the next read tells
            sent = len(wire)
        if learnt.lesson.closes:
            self._close(guest)
        elif sent < len(wire):  # it does not read: the daemon waits for it
            self._hand_over(guest, b"", owed=wire[sent:])
        else:
            guest.at, guest.touched = now, True
            guest.served += 1
            if number not in self._guests:
                self._keep(guest)

    def _ask_for_more(self, lease: Lease) -> None:
        if not lease.asked:
            lease.asked = True
            self._channel.send(("more", lease.number))

    def _keep(self, guest: _Guest) -> None:
        number = guest.number
        if number in self._guests:
            return
        self._guests[number] = guest
        self._epoll.register(number, _READABLE)
        self._fresh[0].append(guest)
        if not self._looking:
            self._looking = True
            self._loop.call_later(_MOMENT, self._look_round)

    def _look_round(self) -> None:
        """Those that are here since the look before are told to the daemon, which limits their number."""
        seated = []
        for guest in self._fresh[1]:
            if self._guests.get(guest.number) is guest:
                self._last_seat += 1
                guest.seat = self._last_seat
                self._seats[guest.seat] = guest
                seated.append((guest.seat, guest.caller.identity, guest.accepted.peer))
        for start in range(0, len(seated), _CHUNK):
            self._channel.send(("seats", seated[start : start + _CHUNK]))
        self._fresh = ([], self._fresh[0])
        self._looking = bool(self._fresh[1])
        if self._looking:
            self._loop.call_later(_MOMENT, self._look_round)

    def _release(self, guest: _Guest) -> None:
        if self._guests.pop(guest.number, None) is not None:
            self._epoll.unregister(guest.number)
        if self._seats.pop(guest.seat, None) is not None:
            self._gone.append(guest.seat)

    def _close(self, guest: _Guest) -> None:
        self._release(guest)
        guest.accepted.close()

    def _hand_over(
        self, guest: _Guest, data: bytes, *, owed: bytes = b"", short: bool = False, back: bool = False
    ) -> None:
        """To the daemon, with what was read and is owed; `short`: for want of more to give; `back`: a
        connection that is worth to be given back."""
        seat, accepted = guest.seat, guest.accepted
        self._release(guest)
        ends = accepted.peer, accepted.local
        words = (seat, guest.caller, guest.epoch, ends, data, owed, short, back)
        self._channel.send(("hand", *words), accepted.detach())

    # What is told, and the end.

    def _beat(self) -> None:
        self._board.beats[self._place] = now = boottime()
        self._accounts += 1
        self._tell(self._known.account())
        if self._accounts % _SWEEP == 0:
            for guest in [one for one in self._seats.values() if now - one.at > self._idle]:
                self._close(guest)
        self._timer = self._loop.call_later(_ACCOUNT, self._beat)

    def _tell(self, account: Account) -> None:
        unresolved = self._attribution.unresolved if self._attribution is not None else 0
        touched: list[int] = []
        if self._accounts % _TOUCHES == 0:
            touched = [seat for seat, guest in self._seats.items() if guest.touched]
            for seat in touched:
                self._seats[seat].touched = False
        news = unresolved - self._unresolved
        self._unresolved = unresolved
        if account.empty and not (touched or self._gone or news):
            return
        gone, self._gone = self._gone, []
        lists = (account.counted, account.settled, account.forgotten, touched, gone)
        for start in range(0, max(len(one) for one in (*lists, [0])), _CHUNK):
            chunk = [one[start : start + _CHUNK] for one in lists]
            self._channel.send(("account", *chunk, 0 if start else news))

    async def _give_all(self) -> None:
        """All connections to the daemon."""
        if self._naming:
            await asyncio.wait(self._naming)
        for guest in list(self._guests.values()):
            self._hand_over(guest, b"")

    async def _recall(self) -> None:
        await self._give_all()
        self._channel.send(("recalled",))

    async def _leave(self) -> None:
        for number in list(self._listeners):
            self._listen(number, False)
        await self._give_all()
        self._timer.cancel()
        self._tell(self._known.account(last=True))
        await self._channel.flushed()
        self._channel.close()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        if self._attribution is not None:
            self._attribution.close()
        self._ended()


def work(board: Board, place: int, wire: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """A worker's life, in a process of its own."""

    async def life() -> None:
        left = asyncio.Event()
        worker = Worker(place, wire, sockets, board, left.set)
        await left.wait()
        del worker

    run_loop(life())
