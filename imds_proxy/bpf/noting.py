"""The programs that note of each connect which process made it, and under which key and in which form.

Two programs on the cgroup v2 root. The first runs in the connecting process and notes it under the socket's
cookie. The second runs once the connection is made, when its port is known, and files the note under the
connection's ends: a socket whose process has exited can no longer be found by its cookie.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from imds_proxy.bpf.assembler import (
    Helper,
    Instruction,
    Label,
    Register,
    Width,
    add,
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
from imds_proxy.bpf.kernel import MapShape

_ACTIVE_ESTABLISHED = 4  # BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
_ENTRIES = 16384
_MAPPED = -65536  # the third word of ::ffff:a.b.c.d, as a little-endian number

NOTE = struct.Struct("=IIIIQQQ16s")
"""Thread, pid, uid, gid, cgroup, time, network namespace, comm."""
KEY = struct.Struct("=QII16s16s")
"""Network namespace, ports (ours, theirs), addresses."""
_COOKIE = 8

R0, R1, R2, R3, R4, R6, R7, R10 = (Register(number) for number in (0, 1, 2, 3, 4, 6, 7, 10))
W, DW = Width.W, Width.DW


def note_shapes(entries: int = _ENTRIES) -> tuple[MapShape, MapShape]:
    """Of the maps of notes by cookie, and by ends."""
    return (
        MapShape("imds_by_cookie", _COOKIE, NOTE.size, entries),
        MapShape("imds_by_ends", KEY.size, NOTE.size, entries),
    )


def note_the_process(by_cookie: int, ports: tuple[int, ...]) -> Iterator[Instruction | Label]:
    """On connect: struct bpf_sock_addr in R1, which goes to R6. Ends with the note made, or not, of a stream;
    of anything else at `out`, which is the caller's. Uses the stack down to -64, where the cookie stays.

    `ports`: those of which notes are made; none given: all.
    """
    yield copy(R6, R1)
    yield load(W, R2, R6, 32)  # type
    yield jump_unless(R2, socket.SOCK_STREAM, "out")
    yield load(W, R2, R6, 24)  # user_port, in network order
    for port in ports:
        yield jump_if(R2, socket.htons(port), "note")
    if ports:
        yield jump("noted")
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
    yield Label("noted")


def allow() -> Iterator[Instruction | Label]:
    """The end, at `out`: always allowed, a note is no decision."""
    yield Label("out")
    yield put(R0, 1)
    yield leave()


def file_the_note(by_cookie: int, by_ends: int) -> Iterator[Instruction | Label]:
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
    yield from allow()
