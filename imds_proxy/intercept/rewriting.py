"""The programs that lead a connect to the service to the proxy instead, and show the client who it asked for.

In the text only; the kernel is elsewhere. A connect is led away where all hold: it is a stream to the
service's address and port, from the daemon's own network namespace, not from the daemon itself, and the
lease has not ended.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imds_proxy.bpf.assembler import (
    Helper,
    Instruction,
    Label,
    Register,
    Width,
    add,
    call,
    copy,
    cut,
    jump,
    jump_if,
    jump_if_above,
    jump_if_word,
    jump_unless_equal,
    jump_unless_word,
    leave,
    load,
    load_map,
    put,
    put_long,
    store,
    store_value,
)
from imds_proxy.bpf.kernel import MapShape
from imds_proxy.bpf.noting import allow, note_the_process

LEASE = MapShape("imds_lease", 4, 8, 1, lru=False)
"""One number: until when connects are led away, in nanoseconds of CLOCK_MONOTONIC."""
LED = MapShape("imds_led", 8, 4, 16384)
"""Cookies of the sockets that were led away."""

_PORT, _TYPE, _SOCK = 24, 32, 64  # fields of struct bpf_sock_addr
_V4, _V6 = 4, 8
_MARK = 16  # a field of struct bpf_sock
_MAPPED = (0, 0, 0xFFFF0000)  # the first words of ::ffff:a.b.c.d, in network order

R0, R1, R2, R3, R4, R6, R7, R10 = (Register(number) for number in (0, 1, 2, 3, 4, 6, 7, 10))
W, DW = Width.W, Width.DW


@dataclass(frozen=True, slots=True)
class Way:
    """From the service's address and port to the proxy's; addresses packed, both of 4 or both of 16 bytes."""

    service: bytes
    service_port: int
    listener: bytes
    listener_port: int

    def __post_init__(self) -> None:
        if len(self.service) != len(self.listener) or len(self.service) not in (4, 16):
            raise ValueError("a way leads between addresses of one family")

    def back(self) -> Way:
        """From the proxy's to the service's."""
        return Way(self.listener, self.listener_port, self.service, self.service_port)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose connects are led away: all in the network namespace with this cookie, but not those of sockets
    with `mark` (SO_MARK) or of processes of `uid`; None: no exemption of that kind. `closed`: without a lease
    these are refused."""

    netns: int
    mark: int | None = None
    uid: int | None = None
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Maps:
    """The descriptors of the maps that programs use."""

    by_cookie: int
    by_ends: int
    lease: int
    led: int


def lead_away(
    ways: Sequence[Way], scope: Scope, maps: Maps, ports: tuple[int, ...], six: bool
) -> Iterator[Instruction | Label]:
    """On connect (struct bpf_sock_addr in R1): notes the process, then puts the proxy's address in place of
    the service's. `six`: of an IPv6 socket, which may name an IPv4 address as ::ffff:a.b.c.d.

    Connects to `ports` (none given: to any) are noted, in every network namespace.
    """
    yield from note_the_process(maps.by_cookie, ports)
    for number, (wanted, port, words, new_port) in enumerate(_rows(ways, six)):
        other = f"other{number}"
        yield from _unless_addressed(wanted, port, other)
        yield from _unless_ours(scope, maps.lease)
        yield from _remember(maps.led)
        yield from _address(words, new_port)
        yield jump("out")
        yield Label(other)
    yield jump("out")
    yield Label("lapsed")
    if scope.closed:
        yield put(R0, 0)  # connect fails with EPERM, at once
        yield leave()
    yield from allow()


def show_the_service(
    ways: Sequence[Way], scope: Scope, maps: Maps, six: bool
) -> Iterator[Instruction | Label]:
    """On getpeername: the service's address in place of the proxy's, of a socket that was led away."""
    yield copy(R6, R1)
    for number, (wanted, port, words, new_port) in enumerate(_rows([way.back() for way in ways], six)):
        other = f"other{number}"
        yield from _unless_addressed(wanted, port, other)
        yield from _unless_here(scope.netns)
        yield from _cookie()
        yield load_map(R1, maps.led)
        yield copy(R2, R10)
        yield add(R2, -64)
        yield call(Helper.MAP_LOOKUP)
        yield jump_if(R0, 0, "out")
        yield from _address(words, new_port)
        yield jump("out")
        yield Label(other)
    yield from allow()


Words = tuple[tuple[int, int], ...]
"""Offsets into struct bpf_sock_addr and the words there, as they lie in memory."""


def _rows(ways: Sequence[Way], six: bool) -> Iterator[tuple[Words, int, Words, int]]:
    for way in ways:
        if six or len(way.service) == 4:
            yield _words(way.service, six), way.service_port, _words(way.listener, six), way.listener_port


def _words(address: bytes, six: bool) -> Words:
    words: tuple[int, ...] = struct.unpack(f"={len(address) // 4}I", address)
    if six and len(words) == 1:
        words = (*_MAPPED, *words)
    return tuple(((_V6 if six else _V4) + 4 * place, word) for place, word in enumerate(words))


def _unless_addressed(words: Words, port: int, other: str) -> Iterator[Instruction | Label]:
    for offset, word in ((_PORT, socket.htons(port)), *words):
        yield load(W, R2, R6, offset)
        yield jump_unless_word(R2, word, other)


def _unless_here(netns: int) -> Iterator[Instruction | Label]:
    yield copy(R1, R6)
    yield call(Helper.NETNS_COOKIE)
    yield put_long(R1, netns)
    yield jump_unless_equal(R0, R1, "out")


def _unless_ours(scope: Scope, lease: int) -> Iterator[Instruction | Label]:
    """To `out` where the connect is from elsewhere or from the daemon, to `lapsed` without a lease."""
    yield from _unless_here(scope.netns)
    if scope.mark is not None:
        yield load(DW, R2, R6, _SOCK)
        yield jump_if(R2, 0, "out")
        yield load(W, R2, R2, _MARK)
        yield jump_if_word(R2, scope.mark, "out")
    if scope.uid is not None:
        yield call(Helper.UID_GID)
        yield cut(R0)
        yield jump_if_word(R0, scope.uid, "out")
    yield store_value(W, R10, -8, 0)
    yield load_map(R1, lease)
    yield copy(R2, R10)
    yield add(R2, -8)
    yield call(Helper.MAP_LOOKUP)
    yield jump_if(R0, 0, "lapsed")
    yield load(DW, R7, R0, 0)
    yield call(Helper.MONOTONIC_NS)
    yield jump_if_above(R0, R7, "lapsed")


def _cookie() -> Iterator[Instruction | Label]:
    yield copy(R1, R6)
    yield call(Helper.SOCKET_COOKIE)
    yield store(DW, R10, -64, R0)


def _remember(led: int) -> Iterator[Instruction | Label]:
    yield from _cookie()
    yield store_value(W, R10, -8, 1)
    yield load_map(R1, led)
    yield copy(R2, R10)
    yield add(R2, -64)
    yield copy(R3, R10)
    yield add(R3, -8)
    yield put(R4, 0)  # BPF_ANY
    yield call(Helper.MAP_UPDATE)


def _address(words: Words, port: int) -> Iterator[Instruction | Label]:
    for offset, word in (*words, (_PORT, socket.htons(port))):
        yield put_long(R2, word)
        yield store(W, R6, offset, R2)
