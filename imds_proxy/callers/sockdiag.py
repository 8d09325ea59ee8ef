"""Asks the kernel who owns one TCP socket, by its exact 4-tuple, over NETLINK_SOCK_DIAG.

Knows nothing of processes, redirects or requests; it never lists sockets and never guesses.
"""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType

# Numbers of linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h and include/net/tcp_states.h.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_TCP_ESTABLISHED = 1
_TCP_CLOSE_WAIT = 8
_ALIVE = (_TCP_ESTABLISHED, _TCP_CLOSE_WAIT)
_INET_DIAG_CGROUP_ID = 21
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBxI")  # inet_diag_req_v2 up to its socket id: family, protocol, ext, states
_PORTS = struct.Struct("!HH")  # source, destination
_INTERFACE_COOKIE = struct.Struct("=III")
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_CGROUP_ID = struct.Struct("=Q")
_TAIL = struct.Struct("=IIIII")  # expires, rqueue, wqueue, uid, inode

_QUESTION_V4 = struct.Struct("=IHHIIBBBxI2s2s16s16sIII")
_HEAD_V4 = (_QUESTION_V4.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST)
_BODY_V4 = (socket.AF_INET, socket.IPPROTO_TCP, 0, _ALL_STATES)
_OWNER = struct.Struct("=II")  # uid, inode

_MESSAGE = _HEADER.size  # inet_diag_msg follows the netlink header
_MESSAGE_ID = _MESSAGE + 4  # family, state, timer, retrans: one byte each
_MESSAGE_TAIL = _MESSAGE_ID + 48  # inet_diag_sockid: 4 + 16 + 16 + 4 + 8
_MESSAGE_END = _MESSAGE_TAIL + _TAIL.size
_RECEIVE_SECONDS, _RECEIVE_MICROSECONDS = 0, 50_000
_STALE_ANSWERS = 16  # how many answers to earlier questions are skipped before giving up

_V4_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=1024)
def _packed(host: str) -> bytes:
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed[12:] if packed.startswith(_V4_MAPPED) else packed


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection: packed address (4 or 16 bytes, never v4-mapped), port, IPv6 scope."""

    address: bytes
    port: int
    scope: int = 0

    @classmethod
    def parse(cls, host: str, port: int, scope: int = 0) -> Endpoint:
        """From an address as text; a v4-mapped one becomes IPv4. Raises OSError on anything else."""
        packed = _packed(host)
        return cls(packed, port, scope if len(packed) == 16 else 0)

    @classmethod
    def from_packed(cls, packed: bytes, port: int, scope: int = 0) -> Endpoint:
        """From 4 or 16 bytes as the kernel has them; a v4-mapped address becomes IPv4."""
        if packed.startswith(_V4_MAPPED) and len(packed) == 16:
            return cls(packed[12:], port)
        return cls(packed, port, scope)

    @property
    def host(self) -> str:
        """The address as text."""
        family = socket.AF_INET if len(self.address) == 4 else socket.AF_INET6
        return socket.inet_ntop(family, self.address)


@dataclass(frozen=True, slots=True)
class SocketOwner:
    """What the kernel says of a live socket: the uid that made it, its inode, its cgroup (v2) id.

    `cgroup_id` is None on kernels before 5.8; on hosts with cgroup v1 it names the v2 root.
    """

    uid: int
    inode: int
    cgroup_id: int | None


class SockDiag:
    """One netlink socket, used again for every question. Thread-safe.

    It answers for the network namespace in which it was opened; `netlink` hands in one opened elsewhere.
    Raises OSError when the kernel has no sock_diag.
    """

    def __init__(self, netlink: socket.socket | None = None) -> None:
        self._socket = netlink or socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        # The kernel answers inside sendto(), so the timeout is only for what should not happen.
        timeout = struct.pack("@ll", _RECEIVE_SECONDS, _RECEIVE_MICROSECONDS)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        self._lock = threading.Lock()
        self._sequence = 0

    def __enter__(self) -> SockDiag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the netlink socket; later questions are answered with None."""
        self._socket.close()

    def owner(self, local: Endpoint, remote: Endpoint) -> SocketOwner | None:
        """The owner of the TCP socket that has exactly these ends, seen from its own side.

        None when there is no such socket, when it is not ESTABLISHED or CLOSE_WAIT (a time-wait socket
        answers with uid 0), when it has no inode (its process is gone), or when the kernel did not answer.
        """
        answer = self._answer(local, remote)
        if answer is None or answer[_MESSAGE + 1] not in _ALIVE:
            return None
        return _read_owner(answer, local, remote)

    def held(self, local: Endpoint, remote: Endpoint) -> SocketOwner | None:
        """The same in whatever state, half-closed too; None when no process holds the socket any more."""
        answer = self._answer(local, remote)
        return _read_owner(answer, local, remote) if answer is not None else None

    def owner_of(self, local: bytes, remote: bytes) -> SocketOwner | None:
        """As `owner`, with ends as the kernel has them (sockaddr_in): a common answer is only compared."""
        ends = (local[2:4], remote[2:4], local[4:8], remote[4:8])
        with self._lock:
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            words = (*_HEAD_V4, self._sequence, 0, *_BODY_V4, *ends, 0, _NO_COOKIE, _NO_COOKIE)
            question = _QUESTION_V4.pack(*words)
            try:
                self._socket.send(question)
                answer = self._socket.recv(512)
            except OSError:
                return None
        # Its header, and the ends that it speaks of; a socket of the other family, a late answer: not here.
        if answer[4:6] != question[4:6] or answer[8:12] != question[8:12] or answer[20:56] != question[24:60]:
            return None
        if answer[_MESSAGE] != socket.AF_INET or answer[_MESSAGE + 1] not in _ALIVE:
            return None
        uid, inode = _OWNER.unpack_from(answer, _MESSAGE_END - _OWNER.size)
        return SocketOwner(uid, inode, _cgroup_id(answer)) if inode else None

    def _answer(self, local: Endpoint, remote: Endpoint) -> bytes | None:
        if len(local.address) != len(remote.address):
            return None
        with self._lock:
            try:
                return self._ask(local, remote)
            except OSError:
                return None

    def _ask(self, local: Endpoint, remote: Endpoint) -> bytes | None:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self._socket.send(_question(local, remote, self._sequence))
        for _ in range(_STALE_ANSWERS):
            answer = self._socket.recv(8192)
            if len(answer) < _HEADER.size:
                return None
            length, kind, _, sequence, _ = _HEADER.unpack_from(answer)
            if sequence != self._sequence:
                continue  # an answer that came after its question had timed out
            complete = kind == _SOCK_DIAG_BY_FAMILY and _MESSAGE_END <= length <= len(answer)
            return answer[:length] if complete else None
        return None


def _question(local: Endpoint, remote: Endpoint, sequence: int) -> bytes:
    family = socket.AF_INET if len(local.address) == 4 else socket.AF_INET6
    # An AF_INET look-up finds AF_INET6 sockets with v4-mapped ends too (inet_diag_find_one_icsk).
    question = b"".join(
        (
            _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES),
            _PORTS.pack(local.port, remote.port),
            local.address.ljust(16, b"\0"),
            remote.address.ljust(16, b"\0"),
            _INTERFACE_COOKIE.pack(local.scope or remote.scope, _NO_COOKIE, _NO_COOKIE),
        )
    )
    length = _HEADER.size + len(question)
    return _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, sequence, 0) + question


def _read_owner(answer: bytes, local: Endpoint, remote: Endpoint) -> SocketOwner | None:
    family = answer[_MESSAGE]
    width = 4 if family == socket.AF_INET else 16
    ports = _PORTS.unpack_from(answer, _MESSAGE_ID)
    source = answer[_MESSAGE_ID + 4 : _MESSAGE_ID + 4 + width]
    destination = answer[_MESSAGE_ID + 20 : _MESSAGE_ID + 20 + width]
    ends = (Endpoint.from_packed(source, ports[0]), Endpoint.from_packed(destination, ports[1]))
    asked = (Endpoint(local.address, local.port), Endpoint(remote.address, remote.port))
    if ends != asked:
        return None
    *_, uid, inode = _TAIL.unpack_from(answer, _MESSAGE_TAIL)
    if inode == 0:
        return None
    return SocketOwner(uid, inode, _cgroup_id(answer))


def _cgroup_id(answer: bytes) -> int | None:
    offset = _MESSAGE_END
    while offset + _ATTRIBUTE.size <= len(answer):
        length, kind = _ATTRIBUTE.unpack_from(answer, offset)
        if length < _ATTRIBUTE.size or offset + length > len(answer):
            return None
        if kind == _INET_DIAG_CGROUP_ID and length == _ATTRIBUTE.size + _CGROUP_ID.size:
            return int(_CGROUP_ID.unpack_from(answer, offset + _ATTRIBUTE.size)[0])
        offset += (length + 3) & ~3
    return None
