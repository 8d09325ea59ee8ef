"""The addresses of one network namespace's interfaces, over NETLINK_ROUTE. Knows nothing of pods."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
_NETLINK_ROUTE = 0
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_DONE, _ERROR = 3, 2
_REQUEST_DUMP = 0x301
_INTERRUPTED = 0x10
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SCOPE_LINK = 253  # and what is nearer: not for others to see

_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")
_TIMEOUT = struct.pack("@ll", 0, 200_000)
_ATTEMPTS = 4
_MOST = 1 << 20  # bytes of one answer


def open_route() -> socket.socket:
    """A socket for `addresses`, of the calling thread's network namespace. Raises OSError."""
    wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
    return wire


def addresses(route: socket.socket) -> frozenset[bytes]:
    """All addresses that others can see, packed. Raises OSError when the kernel does not say."""
    for sequence in range(1, _ATTEMPTS + 1):
        route.send(
            _HEADER.pack(_HEADER.size + _MESSAGE.size, _GET_ADDRESS, _REQUEST_DUMP, sequence, 0)
            + _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        )
        found, whole = _answer(route, sequence)
        if whole:
            return found
    raise OSError("the addresses change faster than they can be read")


def _answer(route: socket.socket, sequence: int) -> tuple[frozenset[bytes], bool]:
    """The addresses, and whether they are of one moment."""
    found: set[bytes] = set()
    whole, taken = True, 0
    while taken < _MOST:
        piece = route.recv(65536)
        taken += len(piece)
        for kind, flags, number, body in _messages(piece):
            if number != sequence:
                continue
            if kind == _ERROR:
                raise OSError("the kernel does not say which addresses there are")
            whole = whole and not flags & _INTERRUPTED
            if kind == _DONE:
                return frozenset(found), whole
            if kind == _NEW_ADDRESS and (address := _address(body)) is not None:
                found.add(address)
    raise OSError("there are too many addresses")


def _messages(piece: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(piece):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(piece, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, piece[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _address(body: bytes) -> bytes | None:
    if len(body) < _MESSAGE.size:
        return None
    scope = _MESSAGE.unpack_from(body)[3]
    if scope >= _SCOPE_LINK:
        return None
    values: dict[int, bytes] = {}
    offset = _MESSAGE.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        values[kind] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    # On a point-to-point link IFA_ADDRESS is the other end's.
    return values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))
