"""What the kernel itself noted of each connect: pid, uid, cgroup and name at that moment (eBPF).

Two programs on the cgroup v2 root. The first runs in the connecting process and notes it under the socket's
cookie. The second runs once the connection is made, when its port is known, and files the note under the
connection's ends: a socket whose process has exited can no longer be found by its cookie.
"""

from __future__ import annotations

import os
import resource
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imds_proxy.callers.bpf import (
    Bpf,
    Helper,
    Instruction,
    Label,
    MapReader,
    Register,
    Width,
    add,
    assemble,
    call,
    copy,
    jump,
    jump_if,
    jump_unless,
    leave,
    load,
    load_map,
    put,
    store,
    store_value,
)
from imds_proxy.callers.sockdiag import Endpoint

_CGROUP_SOCK_ADDR, _SOCK_OPS = 18, 13  # kinds of program
_CONNECT4, _CONNECT6, _ON_SOCK_OPS = 10, 11, 3  # where they are attached
_ACTIVE_ESTABLISHED = 4  # BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
_ENTRIES = 16384
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, since 5.14
_INITIAL = {"pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}  # linux/proc_ns.h
_MAPPED = -65536  # the third word of ::ffff:a.b.c.d, as a little-endian number

_NOTE = struct.Struct("=IIIIQQQ16s")  # thread, pid, uid, gid, cgroup, time, network namespace, comm
_KEY = struct.Struct("=QII16s16s")  # network namespace, ports (ours, theirs), addresses
_COOKIE = 8

R0, R1, R2, R3, R4, R6, R7, R10 = (Register(number) for number in (0, 1, 2, 3, 4, 6, 7, 10))
W, DW = Width.W, Width.DW


@dataclass(frozen=True, slots=True)
class ConnectNote:
    """The process and thread that connected, at that moment; `connected` in seconds of CLOCK_BOOTTIME.

    Pid and uid are those of the initial namespaces. `comm` is a claim.
    """

    thread: int
    pid: int
    uid: int
    gid: int
    cgroup_id: int
    comm: bytes
    connected: float


class ConnectNotes:
    """Notes of connects to `ports` (none given: to any) by every process of the machine. Thread-safe.

    At most `entries` are kept, the latest used.

    Raises OSError, with a reason for people, where that cannot be had: no rights (CAP_BPF and
    CAP_NET_ADMIN, or CAP_SYS_ADMIN), no cgroup v2, an old kernel, other namespaces than the initial ones.
    """

    def __init__(self, cgroup_mount: str | None, ports: Iterable[int] = (), entries: int = _ENTRIES) -> None:
        _require_initial_namespaces()
        if cgroup_mount is None:
            raise OSError("no cgroup v2 hierarchy is mounted")
        self._open: list[int] = []
        self._lock = threading.Lock()
        self._netns = _netns_cookie()
        try:
            self._reader = self._load(cgroup_mount, tuple(ports), entries)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Detaches the programs."""
        with self._lock:
            while self._open:
                os.close(self._open.pop())

    def of(self, client: Endpoint, destination: Endpoint) -> ConnectNote | None:
        """The note on the connection that the client made from `client` to `destination`."""
        key = _KEY.pack(
            self._netns, client.port, socket.htonl(destination.port), _long(client), _long(destination)
        )
        with self._lock:
            value = self._reader.get(key) if self._open else None
        if value is None:
            return None
        thread, pid, uid, gid, cgroup_id, nanoseconds, _, comm = _NOTE.unpack(value)
        return ConnectNote(thread, pid, uid, gid, cgroup_id, comm.rstrip(b"\0"), nanoseconds / 1e9)

    def _load(self, cgroup_mount: str, ports: tuple[int, ...], entries: int) -> MapReader:
        _allow_locked_memory()
        bpf = Bpf()
        by_cookie = self._kept(bpf.lru_map(_COOKIE, _NOTE.size, entries))
        by_ends = self._kept(bpf.lru_map(_KEY.size, _NOTE.size, entries))
        note = assemble(_note_the_process(by_cookie, ports))
        programs = [
            (self._kept(bpf.program(_CGROUP_SOCK_ADDR, _CONNECT4, note)), _CONNECT4),
            (self._kept(bpf.program(_CGROUP_SOCK_ADDR, _CONNECT6, note)), _CONNECT6),
            (
                self._kept(
                    bpf.program(_SOCK_OPS, _ON_SOCK_OPS, assemble(_file_the_note(by_cookie, by_ends)))
                ),
                _ON_SOCK_OPS,
            ),
        ]
        root = os.open(cgroup_mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # First who files, so that no note lies about unfiled.
            for program, place in reversed(programs):
                self._kept(bpf.link(program, root, place))
        finally:
            os.close(root)
        return MapReader(bpf, by_ends, _KEY.size, _NOTE.size)

    def _kept(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor


def _note_the_process(by_cookie: int, ports: tuple[int, ...]) -> Iterator[Instruction | Label]:
    """On connect: struct bpf_sock_addr in R1. The note is built on the stack from -56, its key at -64."""
    yield copy(R6, R1)
    yield load(W, R2, R6, 32)  # type
    yield jump_unless(R2, socket.SOCK_STREAM, "out")
    yield load(W, R2, R6, 24)  # user_port, in network order
    for port in ports:
        yield jump_if(R2, socket.htons(port), "note")
    if ports:
        yield jump("out")
    yield Label("note")
    for helper, offset in ((Helper.PID_TGID, -56), (Helper.UID_GID, -48), (Helper.CGROUP_ID, -40)):
        yield call(helper)
        yield store(DW, R10, offset, R0)
    yield call(Helper.BOOT_NS)
    yield store(DW, R10, -32, R0)
    yield copy(R1, R6)
    yield call(Helper.NETNS_COOKIE)
    yield store(DW, R10, -24, R0)
    yield copy(R1, R10)
    yield add(R1, -16)
    yield put(R2, 16)
    yield call(Helper.COMM)  # into the last 16 bytes
    yield copy(R1, R6)
    yield call(Helper.SOCKET_COOKIE)
    yield store(DW, R10, -64, R0)
    yield load_map(R1, by_cookie)
    yield copy(R2, R10)
    yield add(R2, -64)
    yield copy(R3, R10)
    yield add(R3, -56)
    yield put(R4, 0)  # BPF_ANY
    yield call(Helper.MAP_UPDATE)
    yield Label("out")
    yield put(R0, 1)  # always allowed: a note is no decision
    yield leave()


def _file_the_note(by_cookie: int, by_ends: int) -> Iterator[Instruction | Label]:
    """Once established: struct bpf_sock_ops in R1. Not earlier: a connect from a port whose former
    connection still waits in a listener's queue fails, and must not take that one's place."""
    yield copy(R6, R1)
    yield load(W, R2, R6, 0)  # op
    yield jump_unless(R2, _ACTIVE_ESTABLISHED, "out")
    yield copy(R1, R6)
    yield call(Helper.SOCKET_COOKIE)
    yield store(DW, R10, -8, R0)
    yield load_map(R1, by_cookie)
    yield copy(R2, R10)
    yield add(R2, -8)
    yield call(Helper.MAP_LOOKUP)
    yield jump_if(R0, 0, "out")
    yield copy(R7, R0)
    # The key, from -56: namespace, ports, addresses (IPv4 as ::ffff:a.b.c.d, as a v4-mapped one is).
    yield load(DW, R2, R7, 32)
    yield store(DW, R10, -56, R2)
    yield load(W, R2, R6, 68)  # local_port, in host order
    yield store(W, R10, -48, R2)
    yield load(W, R2, R6, 64)  # remote_port, in network order in 4 bytes
    yield store(W, R10, -44, R2)
    yield load(W, R2, R6, 20)  # family
    yield jump_if(R2, socket.AF_INET6, "six")
    for field, offset in ((28, -40), (24, -24)):  # local_ip4, remote_ip4
        yield store_value(DW, R10, offset, 0)
        yield store_value(W, R10, offset + 8, _MAPPED)
        yield load(W, R2, R6, field)
        yield store(W, R10, offset + 12, R2)
    yield jump("file")
    yield Label("six")
    for field, offset in ((48, -40), (32, -24)):  # local_ip6, remote_ip6
        for word in range(0, 16, 4):
            yield load(W, R2, R6, field + word)
            yield store(W, R10, offset + word, R2)
    yield Label("file")
    yield load_map(R1, by_ends)
    yield copy(R2, R10)
    yield add(R2, -56)
    yield copy(R3, R7)
    yield put(R4, 0)
    yield call(Helper.MAP_UPDATE)
    yield load_map(R1, by_cookie)
    yield copy(R2, R10)
    yield add(R2, -8)
    yield call(Helper.MAP_DELETE)
    yield Label("out")
    yield put(R0, 1)
    yield leave()


def _long(end: Endpoint) -> bytes:
    return end.address if len(end.address) == 16 else bytes(10) + b"\xff\xff" + end.address


def _netns_cookie() -> int:
    with socket.socket(socket.AF_INET) as probe:
        try:
            return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError as error:
            raise OSError(error.errno, "the kernel is older than 5.14") from None


def _require_initial_namespaces() -> None:
    for kind, inode in _INITIAL.items():
        with suppress(OSError):
            if Path(f"/proc/self/ns/{kind}").stat().st_ino == inode:
                continue
        raise OSError(f"not in the initial {kind} namespace, whose numbers the kernel would note")


def _allow_locked_memory() -> None:
    """Before 5.11 maps count as locked memory. Without the right to raise the limit, what it is must do."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
