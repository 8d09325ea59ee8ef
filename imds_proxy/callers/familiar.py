"""Callers that connect again a moment after they were looked at: told without reading all of it once more.

A process that opens a connection for each request is otherwise looked for in /proc for each. By the kernel's
note a connection costs two system calls and no object, without notes three or four; and once in `TRUST` the
three that tell whether the process is what it was.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable

from imds_proxy.callers.connects import ConnectNotes
from imds_proxy.callers.recent import RecentProcesses
from imds_proxy.callers.sockdiag import SockDiag
from imds_proxy.policy.caller import Caller

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

    def __init__(self, notes: ConnectNotes, recent: Callable[[], RecentProcesses]) -> None:
        self._notes, self._recent = notes, recent
        self._destinations = _Destinations()

    def of(self, accepted: int, peer: bytes, local: bytes | None) -> Caller | None:
        """The caller, if its process is one that was noted so before and is what it was.

        `accepted` is the connection's descriptor, `peer` and `local` are its ends as the kernel has them
        (sockaddr); without `local` the kernel is asked.
        """
        to = self._destinations.of(accepted, local) if peer[:2] == _INET else None
        found = self._notes.who(peer, to) if to is not None else None
        process = self._recent().noted(found) if found is not None else None
        return process.caller if process is not None and process.is_the_same() else None


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
