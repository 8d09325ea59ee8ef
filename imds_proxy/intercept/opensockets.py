"""TCP connections of this network namespace to the service, listed and closed by sock_diag.

A redirect acts on new connections only: those that were open before go on to the real service.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imds_proxy.config_values import Address
from imds_proxy.intercept.netlink import ACK, DUMP, REQUEST, answers, netlink

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, include/net/tcp_states.h
_SOCK_DIAG, _BY_FAMILY, _DESTROY = 4, 20, 21
_OPEN = 1 << 1 | 1 << 2 | 1 << 8  # ESTABLISHED, SYN_SENT, CLOSE_WAIT

_QUESTION = struct.Struct("=BBBxI")  # inet_diag_req_v2 up to its socket id: family, protocol, ext, states
_ID = struct.Struct("!HH16s16s12s")  # inet_diag_sockid: ports, addresses, interface and cookie as they are
_TAIL = struct.Struct("=IIIII")  # expires, rqueue, wqueue, uid, inode
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """One connection from this machine: its ends, its socket's user and inode; `key` is the kernel's."""

    local: Address
    remote: Address
    uid: int
    inode: int
    key: bytes


def open_connections(services: Collection[Address]) -> list[OpenConnection]:
    """All that are open to one of the services. Raises OSError."""
    ports = {service.port for service in services}
    found: list[OpenConnection] = []
    with netlink(_SOCK_DIAG) as wire:
        for port in ports:
            for family in (socket.AF_INET, socket.AF_INET6):
                # The kernel leaves out all but this remote port.
                wanted = _ID.pack(0, port, b"", b"", b"")
                question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, _OPEN) + wanted
                for _, body in answers(wire, _BY_FAMILY, REQUEST | DUMP, question):
                    connection = _read(body)
                    if connection.remote in services:
                        found.append(connection)
    return found


def destroy(connections: Sequence[OpenConnection]) -> int:
    """Closes them from outside: their programs see a reset, and connect again. How many there were still.

    Raises OSError: EPERM without CAP_NET_ADMIN, EOPNOTSUPP where the kernel has no SOCK_DESTROY.
    """
    closed = 0
    with netlink(_SOCK_DIAG) as wire:
        for connection in connections:
            family, key = connection.key[0], connection.key[1:]
            question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0) + key
            try:
                for _ in answers(wire, _DESTROY, REQUEST | ACK, question):
                    pass
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
            else:
                closed += 1
    return closed


def programs(inodes: Collection[int], proc: Path = Path("/proc")) -> dict[int, tuple[int, str]]:
    """Of those sockets that a process holds, as far as we may look: its pid and its executable.

    Reads the descriptors of all processes: milliseconds to a second.
    """
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, tuple[int, str]] = {}
    for process in proc.iterdir() if wanted else ():
        if not process.name.isdigit():
            continue
        with suppress(OSError):  # it has ended, or is not ours to look at
            for descriptor in (process / "fd").iterdir():
                inode = wanted.get(str(descriptor.readlink()))
                if inode is not None:
                    found[inode] = (int(process.name), str((process / "exe").readlink()))
    return found


def _read(body: bytes) -> OpenConnection:
    family = body[0]
    raw = body[4 : 4 + _ID.size]
    source_port, destination_port, source, destination, _ = _ID.unpack(raw)
    _, _, _, uid, inode = _TAIL.unpack_from(body, 4 + _ID.size)
    ends = (_address(family, source, source_port), _address(family, destination, destination_port))
    return OpenConnection(*ends, uid, inode, bytes((family,)) + raw)


def _address(family: int, raw: bytes, port: int) -> Address:
    if family == socket.AF_INET6 and raw.startswith(_MAPPED):
        return Address(socket.inet_ntop(socket.AF_INET, raw[12:]), port)
    size = 4 if family == socket.AF_INET else 16
    return Address(socket.inet_ntop(family, raw[:size]), port)
