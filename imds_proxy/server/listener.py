"""Listening sockets: bound here, or made by others; batches of accepted connections come out.

Knows nothing of what is done with a connection.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence

from imds_proxy.config import Address

_BACKLOG = 4096
_FREE_BIND, _FREE_BIND6 = (socket.IPPROTO_IP, 15), (socket.IPPROTO_IPV6, 78)  # linux/in.h, in6.h
_BATCH = 64  # accepted in one turn of the loop, so that others have theirs
_PAUSE = 0.1  # seconds without accepting when there are no more descriptors
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Accepted = tuple[socket.socket, object]
"""A connection and its peer's address."""


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

    def __init__(self, listening: socket.socket, welcome: Callable[[Sequence[Accepted]], None]) -> None:
        """The socket becomes this listener's own. To be made where a loop runs."""
        listening.setblocking(False)
        self.socket, self._welcome = listening, welcome
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Takes what has come already, and no more."""
        if self.socket.fileno() < 0:
            return
        self._loop.remove_reader(self.socket)
        while self._accept():
            pass
        self.socket.close()

    def _accept(self) -> bool:
        """Whether there may be more."""
        batch: list[Accepted] = []
        more = True
        try:
            while len(batch) < _BATCH:
                batch.append(self.socket.accept())
        except (BlockingIOError, InterruptedError):
            more = False
        except OSError as error:
            more = error.errno == errno.ECONNABORTED
            if error.errno in _EXHAUSTED:
                self._loop.remove_reader(self.socket)
                self._loop.call_later(_PAUSE, self._again)
        if batch:
            self._welcome(batch)
        return more

    def _again(self) -> None:
        if self.socket.fileno() >= 0:
            self._loop.add_reader(self.socket, self._accept)
