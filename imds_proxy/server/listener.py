"""Listening sockets: bound here, or made by others; batches of accepted connections come out.

Knows nothing of what is done with a connection.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache

from imds_proxy.config import Address

_BACKLOG = 4096
_FREE_BIND, _FREE_BIND6 = (socket.IPPROTO_IP, 15), (socket.IPPROTO_IPV6, 78)  # linux/in.h, in6.h
_BATCH = 64  # accepted in one turn of the loop, so that others have theirs
_PAUSE = 0.1  # seconds without accepting when there are no more descriptors
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NAME = 28  # bytes of a socket address at most
# Not deferred (TCP_DEFER_ACCEPT): it would spare a third of the CPU of one-shot connections, and name a
# caller that connects, runs another program and then sends as what it became (ATTACKS 23).
_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class Accepted:
    """An accepted connection: its descriptor, and its ends as the kernel has them (sockaddr; our own None
    where the listening socket has no one address). Whoever takes it closes it."""

    __slots__ = ("_socket", "local", "number", "peer")

    def __init__(self, number: int, peer: bytes, local: bytes | None) -> None:
        self.number, self.peer, self.local = number, peer, local
        self._socket: socket.socket | None = None

    @property
    def socket(self) -> socket.socket:
        """The connection as an object, made once."""
        if self._socket is None:
            family = int.from_bytes(self.peer[:2], sys.byteorder)
            self._socket = socket.socket(family, socket.SOCK_STREAM, 0, self.number)
        return self._socket

    @property
    def peername(self) -> tuple[object, ...]:
        """The peer's address as Python has it."""
        return _name_of(self.peer)

    @property
    def own_name(self) -> tuple[object, ...]:
        """Our own end's address as Python has it. Raises OSError where it is gone."""
        if self.local is not None:
            return _name_of(self.local)
        name: tuple[object, ...] = self.socket.getsockname()
        return name

    def detach(self) -> int:
        """The descriptor, which is from now on whoever's it is given to."""
        return self.number if self._socket is None else self._socket.detach()

    def close(self) -> None:
        """Closes it."""
        if self._socket is None:
            os.close(self.number)
        else:
            self._socket.close()


def read_now(number: int, most: int) -> bytes | None:
    """What has come on an accepted connection; None where nothing has, no bytes where no more will."""
    try:
        return os.read(number, most)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def bind(address: Address, hop_limit: int, *, anywhere: bool = False) -> socket.socket:
    """A socket that listens at an address; `anywhere`: at one that this machine need not have yet.

    Raises OSError.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if anywhere:
            listening.setsockopt(*(_FREE_BIND if family == socket.AF_INET else _FREE_BIND6), 1)
        listening.bind((address.host, address.port))
        listening.listen(_BACKLOG)
        limit_hops(listening, hop_limit)
    except OSError:
        listening.close()
        raise
    return listening


def limit_hops(listening: socket.socket, hop_limit: int) -> None:
    """How far answers go; what is accepted inherits it."""
    listening.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hop_limit)
    if listening.family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hop_limit)


class Listener:
    """Accepts from one listening socket until it is closed. `welcome` takes each batch, oldest first."""

    def __init__(
        self,
        listening: socket.socket,
        welcome: Callable[[Sequence[Accepted]], None],
        closed: Callable[[], None] | None = None,
    ) -> None:
        """The socket becomes this listener's own; `closed` is called when it is about to close. To be made
        where a loop runs."""
        listening.setblocking(False)
        self.socket, self._welcome, self._closed = listening, welcome, closed
        self._paused = False
        self._local = _own_name(listening)
        self._loop = asyncio.get_running_loop()
        # With the plain call a connection costs no object, its address no text (bench: 11 us of 43).
        self._accept4 = ctypes.CDLL(None, use_errno=True).accept4
        self._name = ctypes.create_string_buffer(_NAME)
        self._size = ctypes.create_string_buffer(4)
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Takes what has come already, and no more."""
        if self.socket.fileno() < 0:
            return
        if self._closed is not None:
            self._closed()
        self._loop.remove_reader(self.socket)
        while self._accept():
            pass
        self.socket.close()

    def pause(self, paused: bool) -> None:
        """Leaves what comes to others that accept from the same socket, or no longer."""
        if paused == self._paused or self.socket.fileno() < 0:
            return
        self._paused = paused
        if paused:
            self._loop.remove_reader(self.socket)
        else:
            self._loop.add_reader(self.socket, self._accept)

    def _accept(self) -> bool:
        """Whether there may be more."""
        batch: list[Accepted] = []
        listening, size = self.socket.fileno(), struct.pack("=I", _NAME)
        number = 0
        while len(batch) < _BATCH:
            self._size.raw = size
            number = self._accept4(listening, self._name, self._size, _FLAGS)
            if number < 0:
                break
            batch.append(Accepted(number, self._name.raw, self._local))
        error = ctypes.get_errno() if number < 0 else 0
        if error in _EXHAUSTED:
            self._loop.remove_reader(self.socket)
            self._loop.call_later(_PAUSE, self._again)
        if batch:
            self._welcome(batch)
        return error in (0, errno.ECONNABORTED, errno.EINTR)

    def _again(self) -> None:
        if self.socket.fileno() >= 0 and not self._paused:
            self._loop.add_reader(self.socket, self._accept)


@lru_cache(maxsize=1024)
def _name_of(raw: bytes) -> tuple[object, ...]:
    """A sockaddr_in or sockaddr_in6 as Python has it."""
    (port,) = struct.unpack_from("!H", raw, 2)
    if int.from_bytes(raw[:2], sys.byteorder) == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), port
    flow, packed = struct.unpack_from("!I16s", raw, 4)
    (scope,) = struct.unpack_from("=I", raw, 24)
    return socket.inet_ntop(socket.AF_INET6, packed), port, flow, scope


def _own_name(listening: socket.socket) -> bytes | None:
    """An IPv4 socket's own address as the kernel has it; None where connections have various ones."""
    if listening.family != socket.AF_INET:
        return None
    host, port = listening.getsockname()
    packed = socket.inet_pton(socket.AF_INET, host)
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, packed) if any(packed) else None
