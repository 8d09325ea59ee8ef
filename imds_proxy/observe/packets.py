"""The packet socket: segments to and from the metadata service as they leave and reach this machine.

Needs CAP_NET_RAW. Thin: the kernel filters, `segments` reads.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable, Sequence

from imds_proxy.observe.filter import packet_filter
from imds_proxy.observe.segments import Segment, read_segment

# Numbers of linux/if_ether.h, linux/if_packet.h and asm-generic/socket.h.
_ALL_PROTOCOLS = 3
_TO_US, _OUTGOING = 0, 4
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_SOL_PACKET, _STATISTICS = 263, 6
_INSTRUCTION_BYTES = 8
_BUFFER = 8 * 1024 * 1024  # bytes of packets that wait for us
_LARGEST = 65536 + 64
_BATCH = 256  # packets a turn

Take = Callable[[Segment, bool], None]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class PacketSocket:
    """Gives each segment to `take`, and whether it is the client's. Raises OSError where it cannot be had."""

    def __init__(self, services: Sequence[str], port: int) -> None:
        self._services = frozenset(
            socket.inet_pton(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in services
        )
        self._port = port
        self._wire = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ALL_PROTOCOLS)
        )
        self.lost = 0
        try:
            self._attach(packet_filter(services, port))
            self._widen()
            self._drain()
        except OSError:
            self._wire.close()
            raise

    def fileno(self) -> int:
        """For an event loop."""
        return self._wire.fileno()

    def close(self) -> None:
        """No more packets."""
        self._wire.close()

    def read(self, take: Take) -> None:
        """What came since, a bounded part of it."""
        for _ in range(_BATCH):
            try:
                packet, (_, _, kind, *_) = self._wire.recvfrom(_LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            segment = read_segment(packet)
            if segment is None:
                continue
            from_client = segment.target[1] == self._port and segment.target[0] in self._services
            # Each packet of ours once: on loopback the same one is seen going and coming.
            if kind == (_OUTGOING if from_client else _TO_US):
                take(segment, from_client)

    def count_lost(self) -> int:
        """How many packets the kernel had no room for since the last call."""
        raw = self._wire.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        lost = int.from_bytes(raw[4:8], "little")
        self.lost += lost
        return lost

    def _attach(self, program: bytes) -> None:
        buffer = ctypes.create_string_buffer(program, len(program))
        head = _Program(len(program) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
        self._wire.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(head))

    def _widen(self) -> None:
        try:
            self._wire.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:  # without CAP_NET_ADMIN as much as the system allows
            self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)

    def _drain(self) -> None:
        """What came before the filter was there is anything."""
        while True:
            try:
                self._wire.recv(1)
            except (BlockingIOError, InterruptedError):
                return
