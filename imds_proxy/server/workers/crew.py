"""The workers of a daemon: begun, told what is in force, watched, replaced, recalled.

While one of them is alive they accept, and the daemon itself does not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

from imds_proxy.server.arrivals import Arrivals
from imds_proxy.server.build import Daemon, boottime
from imds_proxy.server.listener import Listener
from imds_proxy.server.log import Log
from imds_proxy.server.workers.board import Board
from imds_proxy.server.workers.lessons import Pins
from imds_proxy.server.workers.member import Member
from imds_proxy.server.workers.nursery import Nursery
from imds_proxy.server.workers.worker import work

_WATCH = 0.2  # seconds between looks
_STALE, _DEAD = 1.0, 5.0  # seconds without a sign: the daemon accepts, too; the worker is killed
_LEAVE = 1.0  # seconds that workers have to hand over what they hold
_SETTLED = 10.0  # seconds of life after which a death is no sign of more to come
_PAUSES = (0.0, 0.1, 1.0, 5.0, 30.0)  # seconds before a worker is begun again, by deaths in a row


class Ground:
    """What workers stand on. To be made while the process has one thread, after it gave up its rights."""

    def __init__(self, count: int, sockets: Sequence[socket.socket]) -> None:
        """`sockets` listen; their numbers are their places in this row. Raises OSError."""
        self.count, self.board = count, Board()
        self._descriptors = [one.fileno() for one in sockets]
        self.nursery = Nursery(sockets, partial(work, self.board))

    def number(self, listening: socket.socket) -> int:
        """The number of one of the sockets."""
        return self._descriptors.index(listening.fileno())


class Crew:
    """All workers. `daemon` gives the one in force. To be made where a loop runs."""

    def __init__(self, ground: Ground, daemon: Callable[[], Daemon], arrivals: Arrivals, log: Log) -> None:
        self._ground, self.daemon, self.arrivals, self._log = ground, daemon, arrivals, log
        self.clock, self.pins = boottime, Pins(ground.board)
        self._loop = asyncio.get_running_loop()
        self._members: dict[int, Member] = {}
        self._deaths = [0] * ground.count
        self._listeners: dict[int, Listener] = {}
        self.leaving = False
        daemon().shared.memory.failed = ground.board.failed
        for place in range(ground.count):
            self._bear(place)

    @property
    def count(self) -> int:
        """How many there are to be."""
        return self._ground.count

    @property
    def serving(self) -> int:
        """How many serve."""
        return sum(member.ready for member in self._members.values())

    def listener(self, listening: socket.socket, own: socket.socket) -> Listener:
        """A listener of the daemon's own for a socket (a copy of `listening`, which the workers have), from
        which they accept for as long as it is open."""
        number = self._ground.number(listening)
        listener = Listener(own, self.arrivals.welcome, partial(self._closed, number))
        self._listeners[number] = listener
        for member in self._ready():
            member.listen(number, True)
        self._choose()
        return listener

    def changed(self) -> None:
        """Another configuration is in force: nothing that was taught before counts."""
        self._ground.board.renew()
        for member in self._ready():
            member.configure(self.daemon().shared.times.idle)

    async def recall(self) -> None:
        """All connections are the daemon's own when this returns; workers go on to accept."""
        members = self._ready()
        for member in members:
            member.recall()
        await self._wait_for_all(member.recalled for member in members)

    async def leave(self) -> None:
        """The end of all workers, after they handed over what they hold and told what they counted."""
        self.leaving = True
        for member in self._members.values():
            member.leave()
        await self._wait_for_all(member.gone for member in self._members.values())
        for member in self._members.values():
            _kill(member)
        self._ground.nursery.close()
        await self._wait_for_all(member.gone for member in self._members.values())

    async def watch(self) -> None:
        """Sees that they are alive, until cancelled."""
        while True:
            await asyncio.sleep(_WATCH)
            for member in self._members.values():
                if self._silent(member) > _DEAD:
                    _kill(member)
            self._choose()

    def begun(self, member: Member) -> None:
        """It is ready: it is told all, and accepts."""
        member.configure(self.daemon().shared.times.idle)
        for number in self._listeners:
            member.listen(number, True)
        self._choose()

    def ended(self, member: Member) -> None:
        """It is no more: another one takes its place."""
        del self._members[member.place]
        self._choose()
        if self.leaving:
            return
        place, lived = member.place, self.clock() - member.born
        if lived > _SETTLED:
            self._deaths[place] = 0
        pause = _PAUSES[min(self._deaths[place], len(_PAUSES) - 1)]
        self._deaths[place] += 1
        self._log.event(
            "worker-ended",
            "a worker ended; another one follows",
            detail=f"process {member.pid or 'unknown'}, after {lived:.1f} s; {self.serving} of "
            f"{self._ground.count} serve, the next one in {pause:g} s",
        )
        self._loop.call_later(pause, self._bear, place)

    async def _wait_for_all(self, events: Iterable[asyncio.Event]) -> None:
        """For a bounded time."""
        waiting = [self._loop.create_task(event.wait()) for event in events]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=_LEAVE)
            for task in late:
                task.cancel()

    def _bear(self, place: int) -> None:
        if self.leaving:
            return
        self._ground.board.beats[place] = 0.0
        try:
            wire = self._ground.nursery.bear(place)
        except OSError:
            self._log.event(
                "no-more-workers",
                "no worker can be begun any more; the daemon serves without, until a restart",
            )
            return
        self._members[place] = Member(self, place, wire)

    def _ready(self) -> list[Member]:
        return [member for member in self._members.values() if member.ready]

    def _silent(self, member: Member) -> float:
        return self.clock() - max(member.born, self._ground.board.beats[member.place])

    def _choose(self) -> None:
        """The daemon accepts where no worker does."""
        paused = any(self._silent(member) < _STALE for member in self._ready())
        for listener in self._listeners.values():
            listener.pause(paused)

    def _closed(self, number: int) -> None:
        del self._listeners[number]
        for member in self._ready():
            member.listen(number, False)


def _kill(member: Member) -> None:
    if member.pid is not None:
        with suppress(OSError):
            os.kill(member.pid, signal.SIGKILL)
