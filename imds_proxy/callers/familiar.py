"""Callers that connect again a moment after they were looked at: told without reading all of it once more.

A process that opens a connection for each request is otherwise read in /proc for each. By the kernel's note a
connection costs two system calls and no object; without notes three or four.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Callable

from imds_proxy.callers.connects import ConnectNotes
from imds_proxy.callers.recent import TRUST, RecentProcesses
from imds_proxy.callers.sockdiag import SockDiag
from imds_proxy.policy.caller import Caller

_MAX_KNOWN = 1024
_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h
_INET = struct.pack("=H", socket.AF_INET)
_NAME_SIZE = struct.pack("=I", 16)


class _Destinations:
    """Where accepted connections over IPv4 were going, by plain calls."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._getsockopt, self._getsockname = library.getsockopt, library.getsockname
        self._name = ctypes.create_string_buffer(16)
        self._size = ctypes.create_string_buffer(_NAME_SIZE, 4)

    def of(self, accepted: int, local: bytes | None) -> bytes | None:
        """The sockaddr that the client connected to; None where it cannot be told."""
        self._size.raw = _NAME_SIZE
        # Fails where it was not redirected; then it came to our own end.
        if self._getsockopt(accepted, socket.SOL_IP, _SO_ORIGINAL_DST, self._name, self._size) == 0:
            return self._name.raw
        if local is not None:
            return local
        self._size.raw = _NAME_SIZE
        return self._name.raw if self._getsockname(accepted, self._name, self._size) == 0 else None


class FamiliarByNote:
    """By what the kernel noted of the connect. Connections over IPv4 only; of others nothing is known here.
    Of one thread."""

    def __init__(self, notes: ConnectNotes, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds, monotonic."""
        self._notes, self._clock = notes, clock
        self._known: dict[bytes, tuple[Caller, float]] = {}
        self._destinations = _Destinations()

    def of(self, accepted: int, peer: bytes, local: bytes | None) -> Caller | bytes | None:
        """The caller, if it was looked at a moment ago; else under what it may be trusted once it has been;
        None where there is no note of the connection.

        `accepted` is the connection's descriptor, `peer` and `local` are its ends as the kernel has them
        (sockaddr); without `local` the kernel is asked.
        """
        to = self._destinations.of(accepted, local) if peer[:2] == _INET else None
        found = self._notes.who(peer, to) if to is not None else None
        if found is None:
            return None
        known = self._known.get(found)
        return known[0] if known is not None and self._clock() < known[1] else found

    def trust(self, signature: bytes, caller: Caller) -> None:
        """The process that was noted so has just been looked at."""
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[signature] = caller, self._clock() + TRUST

    def forget(self) -> None:
        """Callers are to be named anew."""
        self._known.clear()


class FamiliarBySocket:
    """By what sock_diag says of the client's socket, and the descriptor under which its process holds it."""

    def __init__(self, diag: SockDiag, recent: Callable[[], RecentProcesses]) -> None:
        self._diag, self._recent = diag, recent
        self._destinations = _Destinations()

    def of(self, accepted: int, peer: bytes, local: bytes | None) -> Caller | None:
        """The caller, if its process is one that was a caller before and is what it was."""
        to = self._destinations.of(accepted, local) if peer[:2] == _INET else None
        owner = self._diag.owner_of(peer, to) if to is not None else None
        if owner is None:
            return None
        for process in self._recent().of((owner.uid, owner.cgroup_id)):
            if process.holding(owner.inode) is not None:
                return process.caller if process.is_the_same() else None
        return None

    def trust(self, signature: bytes, caller: Caller) -> None:
        """Nothing: a process that was seen tells by itself when it was looked at."""

    def forget(self) -> None:
        """Nothing: processes that were seen are remembered elsewhere."""
