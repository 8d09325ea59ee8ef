"""A question to the kernel over netlink, and the messages of its answer. Knows nothing of what they say."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

# linux/netlink.h
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_TIMEOUT = struct.pack("@ll", 2, 0)


def netlink(protocol: int) -> socket.socket:
    """A socket for questions, each answered within two seconds. Raises OSError."""
    wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
    return wire


def answers(wire: socket.socket, kind: int, flags: int, message: bytes) -> Iterator[tuple[int, bytes]]:
    """Asks, and yields type and body of each message of the answer, up to its end or its acknowledgement.

    Raises OSError, among them what the kernel answers with.
    """
    wire.send(_HEADER.pack(_HEADER.size + len(message), kind, flags, 1, 0) + message)
    while True:
        data = wire.recv(1 << 18)
        while len(data) >= _HEADER.size:
            length, answered, _, _, _ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
            if answered == _DONE:
                return
            if answered == _ERROR:
                code = -int(struct.unpack_from("=i", body)[0])
                if code:
                    raise OSError(code, os.strerror(code))
                return
            yield answered, body
