"""A bounded memory of processes that were callers, by uid and cgroup of their sockets.

Knows nothing of /proc: whether a remembered process is still the same is for the reader to check.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from imds_proxy.callers.profile import ProcessFacts
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.policy.caller import Caller

_MAX_KEYS = 256
_MAX_PER_KEY = 8

OwnerKey = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """A process as it was when it was last a caller, and the descriptor under which it held its socket:
    a program that connects again is often given the same one."""

    pid: int
    descriptor: int
    facts: ProcessFacts
    caller: Caller


def key_of(owner: SocketOwner) -> OwnerKey:
    """What remembered processes are filed under: uid and cgroup id of the socket."""
    return owner.uid, owner.cgroup_id


class RecentProcesses:
    """The last eight processes of each of the last 256 pairs of uid and cgroup. Thread-safe."""

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
