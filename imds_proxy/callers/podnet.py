"""Whose a source address is: the network namespaces of this machine, by the addresses that they have.

For callers behind the node agent. An address that two namespaces have is nobody's, and so is one that came to
a namespace late: a pod has its addresses before its first process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from imds_proxy.callers.netns import NetworkNamespace, within

FRESH = 0.5
"""Seconds for which a look at all processes holds; what is not found by it is looked for anew at once."""
_GRACE = 5.0  # seconds in which a namespace that was seen first may still be given addresses
_MOST = 4096  # namespaces that are held open


@dataclass(slots=True)
class _Known:
    network: NetworkNamespace
    seen: float
    addresses: frozenset[bytes] = frozenset()  # as they are
    its_own: frozenset[bytes] = frozenset()  # that it had from the beginning


@dataclass(frozen=True, slots=True)
class _Look:
    """All that was true at one moment."""

    at: float = float("-inf")
    claims: dict[bytes, tuple[_Known, ...]] = field(default_factory=dict)


class PodNetworks:
    """The network namespaces of all processes but our own. Thread-safe.

    Raises OSError without the right to enter them (CAP_SYS_ADMIN). Of processes that may not be looked at
    (CAP_SYS_PTRACE) it knows none.
    """

    def __init__(self, proc_root: str = "/proc", clock: Callable[[], float] = time.monotonic) -> None:
        self._proc_root, self._clock = proc_root, clock
        handle = os.open(f"{proc_root}/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._ours = os.fstat(handle).st_ino
            within(handle, lambda: None)
        finally:
            os.close(handle)
        self._looking = threading.Lock()
        self._known: dict[int, _Known] = {}
        self._look = _Look()
        self._closed = False

    def owner(self, address: bytes) -> NetworkNamespace | None:
        """The namespace that alone has this address, as of the last look; quick."""
        claims = self._look.claims.get(address, ())
        # Anyone can make a namespace within a user namespace of his own, and give it any address.
        by_host = [known for known in claims if known.network.host_owned]
        believed = by_host or claims
        if len(believed) != 1 or address not in believed[0].its_own:
            return None
        network = believed[0].network
        return None if network.inode == self._ours else network

    @property
    def fresh(self) -> bool:
        """Whether the last look was just now."""
        return self._clock() - self._look.at < FRESH

    def look(self, since: float) -> None:
        """Looks at all processes, unless another thread has since that time (of the clock); 5 µs for each
        process. Namespaces without one are let go of."""
        with self._looking:
            if self._look.at >= since or self._closed:
                return
            now = self._clock()
            seen = self._namespaces()
            for inode in self._known.keys() - seen.keys():
                self._known.pop(inode).network.close()
            for inode, pid in seen.items():
                if inode not in self._known and len(self._known) < _MOST:
                    with suppress(OSError):
                        network = NetworkNamespace(pid, self._proc_root)
                        if network.inode == inode:
                            self._known[inode] = _Known(network, now)
                        else:  # the process went elsewhere between
                            network.close()
            self._look = _Look(now, _claims(self._known.values(), now))

    def tend(self) -> None:
        """To be called every few seconds, from a thread: none is held open long after its processes."""
        self.look(self._clock() - FRESH)

    def now(self) -> float:
        """The time that `look` takes."""
        return self._clock()

    def close(self) -> None:
        """Lets go of all namespaces."""
        with self._looking:
            self._closed = True
            self._look = _Look()
            for known in self._known.values():
                known.network.close()
            self._known.clear()

    def _namespaces(self) -> dict[int, int]:
        """Number of the namespace, and a process in it."""
        found: dict[int, int] = {}
        for name in os.listdir(self._proc_root):  # noqa: PTH208 - hot
            if name.isdecimal():
                with suppress(OSError):
                    inode = os.stat(f"{self._proc_root}/{name}/ns/net").st_ino  # noqa: PTH116 - hot
                    found.setdefault(inode, int(name))
        return found


def _claims(all_known: Iterable[_Known], now: float) -> dict[bytes, tuple[_Known, ...]]:
    claims: dict[bytes, tuple[_Known, ...]] = {}
    for known in all_known:
        try:
            known.addresses = known.network.addresses()
        except OSError:
            known.addresses = frozenset()
        if now - known.seen < _GRACE:
            known.its_own |= known.addresses
        for address in known.addresses:
            claims[address] = (*claims.get(address, ()), known)
    return claims
