"""What the kernel itself noted of each connect: pid, uid, cgroup and name at that moment (eBPF).

The programs that note are those of `bpf.noting`; where the redirect is eBPF's too, it has loaded them.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imds_proxy.bpf.assembler import assemble
from imds_proxy.bpf.kernel import Bpf, Kind, MapReader, Place, allow_locked_memory, netns_cookie
from imds_proxy.bpf.noting import KEY, NOTE, allow, file_the_note, note_shapes, note_the_process
from imds_proxy.callers.sockdiag import Endpoint

_TIME = 24  # offset of a note's time
_PORT = struct.Struct("!H")
_MAPPED = bytes(10) + b"\xff\xff"
_INITIAL = {"pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}  # linux/proc_ns.h


@dataclass(frozen=True, slots=True)
class ConnectNote:
    """The process and thread that connected, at that moment; `connected` in seconds of CLOCK_BOOTTIME.

    Pid and uid are those of the initial namespaces. `comm` is a claim. `signature` is all of it but the time,
    as the kernel has it: see `ConnectNotes.who`.
    """

    thread: int
    pid: int
    uid: int
    gid: int
    cgroup_id: int
    comm: bytes
    connected: float
    signature: bytes = b""


class ConnectNotes:
    """Notes of connects, by their ends, in a map that programs fill. Thread-safe.

    `descriptors` are closed with it; the first is the map. Raises OSError, with a reason for people, outside
    of the initial namespaces, and in a kernel that has no cookie for its network namespaces.
    """

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._open = list(descriptors)
        self._lock = threading.Lock()
        try:
            _require_initial_namespaces()
            self._netns = netns_cookie()
            self._reader = MapReader(Bpf(), descriptors[0], KEY.size, NOTE.size)
        except OSError:
            self.close()
            raise

    @property
    def map(self) -> int:
        """The map's descriptor, from which others of this daemon's processes may read too."""
        return self._open[0]

    def close(self) -> None:
        """Lets go of the map, and detaches the programs that were loaded for it."""
        with self._lock:
            while self._open:
                os.close(self._open.pop())

    def of(self, client: Endpoint, destination: Endpoint, netns: int | None = None) -> ConnectNote | None:
        """The note on the connection that the client made from `client` to `destination`, in the network
        namespace with this cookie (None: ours)."""
        value = self._value(client.port, _long(client), destination.port, _long(destination), netns)
        if value is None:
            return None
        thread, pid, uid, gid, cgroup_id, nanoseconds, _, comm = NOTE.unpack(value)
        comm, at = comm.rstrip(b"\0"), nanoseconds / 1e9
        return ConnectNote(thread, pid, uid, gid, cgroup_id, comm, at, _signature(value))

    def who(self, client: bytes, to: bytes) -> bytes | None:
        """All that a note says but its time, for comparison with another: who connected from `client` to `to`
        (both sockaddr_in, as the kernel has them)."""
        port, to_port = _PORT.unpack_from(client, 2)[0], _PORT.unpack_from(to, 2)[0]
        value = self._value(port, _MAPPED + client[4:8], to_port, _MAPPED + to[4:8])
        return None if value is None else _signature(value)

    def _value(
        self, port: int, address: bytes, to_port: int, to: bytes, netns: int | None = None
    ) -> bytes | None:
        key = KEY.pack(netns or self._netns, port, socket.htonl(to_port), address, to)
        with self._lock:
            return self._reader.get(key) if self._open else None


def note_connects(
    cgroup_mount: str | None, ports: Iterable[int] = (), entries: int | None = None
) -> ConnectNotes:
    """Loads the programs that note the connects to `ports` (none given: to any) by every process of the
    machine. At most `entries` notes are kept, the latest used.

    Raises OSError, with a reason for people, where that cannot be had: no rights (CAP_BPF and
    CAP_NET_ADMIN, or CAP_SYS_ADMIN), no cgroup v2, an old kernel, other namespaces than the initial ones.
    """
    _require_initial_namespaces()
    if cgroup_mount is None:
        raise OSError("no cgroup v2 hierarchy is mounted")
    netns_cookie()
    allow_locked_memory()
    bpf = Bpf()
    held: list[int] = []

    def kept(descriptor: int) -> int:
        held.append(descriptor)
        return descriptor

    try:
        cookie_shape, ends_shape = note_shapes() if entries is None else note_shapes(entries)
        by_ends = kept(bpf.map(ends_shape))
        by_cookie = kept(bpf.map(cookie_shape))
        note = assemble((*note_the_process(by_cookie, tuple(ports)), *allow()))
        file = assemble(file_the_note(by_cookie, by_ends))
        root = kept(os.open(cgroup_mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        # First who files, so that no note lies about unfiled.
        for kind, place, code in (
            (Kind.SOCK_OPS, Place.SOCK_OPS, file),
            (Kind.SOCK_ADDR, Place.CONNECT6, note),
            (Kind.SOCK_ADDR, Place.CONNECT4, note),
        ):
            kept(bpf.link(kept(bpf.program(kind, place, code)), root, place))
    except OSError:
        for descriptor in held:
            os.close(descriptor)
        raise
    return ConnectNotes(held)


def _signature(note: bytes) -> bytes:
    return note[:_TIME] + note[_TIME + 8 :]


def _long(end: Endpoint) -> bytes:
    return end.address if len(end.address) == 16 else _MAPPED + end.address


def _require_initial_namespaces() -> None:
    for kind, inode in _INITIAL.items():
        with suppress(OSError):
            if Path(f"/proc/self/ns/{kind}").stat().st_ino == inode:
                continue
        raise OSError(f"not in the initial {kind} namespace, whose numbers the kernel would note")
