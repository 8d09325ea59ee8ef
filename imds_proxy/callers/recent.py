"""A bounded memory of processes that were callers, by uid and cgroup of their sockets.

Each is kept in sight by an open view, so that its pid cannot become another process's.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from imds_proxy.callers.procfs import ProcessView
from imds_proxy.callers.profile import ProcessFacts, digest_of
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.policy.caller import Caller

# Uid and cgroup of a caller are of this very connection. What is believed for this time is that its process
# runs the program that it ran when it was looked at; and the executable only narrows who a caller is.
TRUST = 0.02  # seconds
_MAX_PROCESSES = 512  # of all keys; each holds three descriptors
_MAX_PER_KEY = 8
_MAX_NOTED = 512
_MAX_DESCRIPTORS = 24

OwnerKey = tuple[int, int | None]


class Habits:
    """Under which descriptors a process held its sockets, and when it was last found to be what it was
    (`checked_at`, seconds, monotonic). `sockets` are those that it held at the last search, by inode.

    A program that connects again is given a descriptor that it closed: one after another the same, many at
    once in the same order as before.
    """

    __slots__ = ("_followed_by", "_last", "checked_at", "sockets")

    def __init__(self, first: int) -> None:
        self.checked_at = float("-inf")
        self.sockets: dict[int, int] = {}
        self._last = first
        self._followed_by: dict[int, int] = {first: first}

    def likely(self) -> Iterator[int]:
        """The descriptors under which it may hold the next one, the likeliest first."""
        first, second = self._followed_by.get(self._last, self._last), self._last
        yield first
        if second != first:
            yield second
        yield from [one for one in self._followed_by if one != first and one != second]

    def held(self, descriptor: int) -> None:
        """It did hold one under this."""
        self._followed_by[self._last] = self._last = descriptor
        # The one used longest ago is tried first of the others, and forgotten first.
        self._followed_by[descriptor] = self._followed_by.pop(descriptor, descriptor)
        if len(self._followed_by) > _MAX_DESCRIPTORS:
            del self._followed_by[next(iter(self._followed_by))]


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """A process as it was when it was last a caller. `view` stays open, made ready to be read again."""

    view: ProcessView
    facts: ProcessFacts
    caller: Caller
    habits: Habits = field(compare=False)

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.view.pid

    def is_the_same(self) -> bool:
        """Whether it runs the same program in the same place: no exec, no move to another cgroup. Looked at
        again after `TRUST`."""
        clock = time.monotonic()
        if clock - self.habits.checked_at < TRUST:
            return True
        now, then = self.view.reread(), self.facts
        same = (
            now is not None
            and then.executable is not None
            and now[:2] == (then.executable.device, then.executable.inode)
            and now[3] == then.cgroup
            and digest_of(now[2]) == then.cmdline_digest
        )
        self.habits.checked_at = clock if same else float("-inf")
        return same

    def holding(self, inode: int) -> int | None:
        """The descriptor that is this socket, if it is one of those known."""
        listed = self.habits.sockets.get(inode)
        if listed is not None and self.view.holds(listed, inode):
            return listed
        held = next((one for one in self.habits.likely() if self.view.holds(one, inode)), None)
        if held is not None:
            self.habits.held(held)
        return held

    def search(self, inode: int, limit: int) -> int | None:
        """The descriptor that is this socket, by a list of all. It tells of the others that were held, too:
        of many calls that came at once (to a daemon that has just started) only the first costs this.
        None for a process with more than `limit` descriptors. Raises OSError."""
        if self.view.descriptor_count() > limit:
            return None
        self.habits.sockets = sockets = self.view.sockets(limit)
        held = sockets.get(inode)
        if held is not None:
            self.habits.held(held)
        return held


def key_of(owner: SocketOwner) -> OwnerKey:
    """What remembered processes are filed under: uid and cgroup id of the socket."""
    return owner.uid, owner.cgroup_id


class RecentProcesses:
    """The last eight processes of each pair of uid and cgroup, of the latest pairs. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._seen: OrderedDict[OwnerKey, tuple[SeenProcess, ...]] = OrderedDict()
        self._noted: dict[bytes, SeenProcess] = {}

    def of(self, key: OwnerKey) -> tuple[SeenProcess, ...]:
        """The processes remembered for that uid and cgroup, the latest caller first."""
        with self._lock:
            return self._seen.get(key, ())

    def noted(self, signature: bytes) -> SeenProcess | None:
        """The process that the kernel notes so (see `ConnectNote`)."""
        return self._noted.get(signature)

    def note(self, signature: bytes, process: SeenProcess) -> None:
        """The kernel noted this process so."""
        with self._lock:
            if len(self._noted) >= _MAX_NOTED:
                self._noted.clear()
            self._noted[signature] = process

    def remember(self, key: OwnerKey, process: SeenProcess) -> None:
        """Puts a process first, in place of what was known of its pid."""
        with self._lock:
            before = len(self._seen.get(key, ()))
            others = tuple(other for other in self._seen.get(key, ()) if other.pid != process.pid)
            self._seen[key] = (process, *others)[:_MAX_PER_KEY]
            self._seen.move_to_end(key)
            self._count += len(self._seen[key]) - before
            while self._count > _MAX_PROCESSES:
                self._count -= len(self._seen.popitem(last=False)[1])

    def forget(self, key: OwnerKey, process: SeenProcess) -> None:
        """Drops a process that has ended."""
        with self._lock:
            left = tuple(other for other in self._seen.get(key, ()) if other is not process)
            self._count += len(left) - len(self._seen.get(key, ()))
            if left:
                self._seen[key] = left
            else:
                self._seen.pop(key, None)
