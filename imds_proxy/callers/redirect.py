"""Where a redirected connection was going before the redirect, as conntrack remembers it.

Knows nothing of who called; it asks the accepted socket alone.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import TypeVar

from imds_proxy.callers.sockdiag import Endpoint

_T = TypeVar("_T")

_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST has the same number
_SOL_IPV6 = 41
_SOCKADDR_IN = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6 = struct.Struct("!2xH4x16s4x")


def local_endpoint(accepted: socket.socket) -> Endpoint | None:
    """The accepted socket's own end. None when it is not TCP over IP or already closed."""
    try:
        return endpoint_of(_asked(accepted, socket.socket.getsockname))
    except OSError:
        return None


def endpoint_of(name: object) -> Endpoint | None:
    """A socket address as Python gives it, `(host, port)` or `(host, port, flow, scope)`; else None."""
    if not isinstance(name, tuple) or len(name) not in (2, 4):
        return None
    host, port = name[0], name[1]
    scope = name[3] if len(name) == 4 else 0
    if not (isinstance(host, str) and isinstance(port, int) and isinstance(scope, int)):
        return None
    try:
        return Endpoint.parse(host, port, scope)
    except OSError:
        return None


def original_destination(accepted: socket.socket, local: Endpoint) -> Endpoint | None:
    """The address that the client connected to; None when the connection was not redirected.

    `local` is the accepted socket's own end: conntrack names it too for a connection that it merely saw.
    Without conntrack the kernel refuses the question, and nothing can have been redirected.
    """
    level, shape = (socket.SOL_IP, _SOCKADDR_IN) if len(local.address) == 4 else (_SOL_IPV6, _SOCKADDR_IN6)
    try:
        answer = _asked(accepted, lambda wire: wire.getsockopt(level, _SO_ORIGINAL_DST, shape.size))
    except OSError:
        return None
    if len(answer) < shape.size:
        return None
    port, address = shape.unpack_from(answer)
    original = Endpoint.from_packed(address, port)
    return None if (original.address, original.port) == (local.address, local.port) else original


def _asked(accepted: socket.socket, question: Callable[[socket.socket], _T]) -> _T:
    """The kernel's answer, for one system call: a transport's socket costs three more. Raises OSError."""
    number = accepted.fileno()
    if number < 0:
        raise OSError(errno.EBADF, "it is closed")
    # With a family given Python asks the kernel nothing; this one has room for addresses of both.
    wire = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, number)
    try:
        return question(wire)
    finally:
        wire.detach()
