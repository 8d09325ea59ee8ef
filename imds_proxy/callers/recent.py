"""A bounded memory of processes that were callers, by uid and cgroup of their sockets.

Each is kept in sight by an open view, so that its pid cannot become another process's.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from imds_proxy.callers.procfs import ProcessView
from imds_proxy.callers.profile import ProcessFacts, digest_of
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.policy.caller import Caller

_MAX_KEYS = 64
_MAX_PER_KEY = 8
_MAX_DESCRIPTORS = 24

OwnerKey = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """A process as it was when it was last a caller, and the descriptors under which it held its sockets,
    the latest first: a program that connects again is often given one of them.

    `view` stays open, made ready to be read again.
    """

    view: ProcessView
    descriptors: tuple[int, ...]
    facts: ProcessFacts
    caller: Caller

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.view.pid

    def is_the_same(self) -> bool:
        """Whether it runs the same program in the same place: no exec, no move to another cgroup."""
        now, then = self.view.reread(), self.facts
        return (
            now is not None
            and then.executable is not None
            and now[:2] == (then.executable.device, then.executable.inode)
            and now[3] == then.cgroup
            and digest_of(now[2]) == then.cmdline_digest
        )

    def holding(self, inode: int) -> int | None:
        """The descriptor that is this socket, if it is one of those known."""
        return next((one for one in self._likely() if self.view.holds(one, inode)), None)

    def with_descriptor(self, descriptor: int) -> SeenProcess:
        """The same, last seen with this descriptor."""
        others = tuple(one for one in self.descriptors if one != descriptor)
        return replace(self, descriptors=(descriptor, *others)[:_MAX_DESCRIPTORS])

    def _likely(self) -> Iterator[int]:
        # One after another: the last one again. Many at once: the one that was given longest ago.
        yield self.descriptors[0]
        yield from reversed(self.descriptors[1:])


def key_of(owner: SocketOwner) -> OwnerKey:
    """What remembered processes are filed under: uid and cgroup id of the socket."""
    return owner.uid, owner.cgroup_id


class RecentProcesses:
    """The last eight processes of each of the last 64 pairs of uid and cgroup. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[OwnerKey, tuple[SeenProcess, ...]] = OrderedDict()

    def of(self, key: OwnerKey) -> tuple[SeenProcess, ...]:
        """The processes remembered for that uid and cgroup, the latest caller first."""
        with self._lock:
            return self._seen.get(key, ())

    def remember(self, key: OwnerKey, process: SeenProcess) -> None:
        """Puts a process first, in place of what was known of its pid."""
        with self._lock:
            others = tuple(other for other in self._seen.get(key, ()) if other.pid != process.pid)
            self._seen[key] = (process, *others)[:_MAX_PER_KEY]
            self._seen.move_to_end(key)
            if len(self._seen) > _MAX_KEYS:
                self._seen.popitem(last=False)

    def forget(self, key: OwnerKey, process: SeenProcess) -> None:
        """Drops a process that has ended."""
        with self._lock:
            left = tuple(other for other in self._seen.get(key, ()) if other is not process)
            if left:
                self._seen[key] = left
            else:
                self._seen.pop(key, None)
