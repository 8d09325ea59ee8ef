"""Both ends of a redirected connection as its client has them, from the kernel's connection tracking.

Asked only where the address translation had to change the client's port, which SO_ORIGINAL_DST does not tell.
"""

from __future__ import annotations

import socket
import struct
import threading

from imds_proxy.callers.sockdiag import Endpoint

# linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h
_NETLINK_NETFILTER = 12
_CT_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_CT_NEW = 1 << 8 | 0  # what an answer is called
_NLM_F_REQUEST = 1
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4 = (1, 2)  # source, destination
_V6 = (3, 4)
_PROTO_NUM, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_NESTED, _KIND = 0x8000, 0x3FFF

_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBH")  # family, version, resource
_ATTRIBUTE = struct.Struct("=HH")
_PORT = struct.Struct("!H")
_TIMEOUT = struct.pack("@ll", 0, 50_000)


class Conntrack:
    """One netlink socket. Thread-safe. Without CAP_NET_ADMIN, or connection tracking, it knows nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        except OSError:
            self.close()

    def close(self) -> None:
        """Closes the netlink socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def original(self, peer: Endpoint, local: Endpoint) -> tuple[Endpoint, Endpoint] | None:
        """The client's own end and where it connected to, for a connection accepted at `local` from `peer`.

        None when the kernel does not say.
        """
        if self._socket is None or len(peer.address) != len(local.address):
            return None
        family = socket.AF_INET if len(local.address) == 4 else socket.AF_INET6
        # The reply goes from our end to what we see of the client's.
        body = _GENERIC.pack(family, 0, 0) + _nested(_TUPLE_REPLY, _tuple(local, peer))
        with self._lock:
            self._sequence += 1
            message = (
                _HEADER.pack(_HEADER.size + len(body), _CT_GET, _NLM_F_REQUEST, self._sequence, 0) + body
            )
            try:
                self._socket.send(message)
                answer = self._socket.recv(8192)
            except OSError:
                return None
        if len(answer) < _HEADER.size + _GENERIC.size:
            return None
        length, kind, _, sequence, _ = _HEADER.unpack_from(answer)
        if kind != _CT_NEW or sequence != self._sequence or length > len(answer):
            return None
        return _read(answer[_HEADER.size + _GENERIC.size : length])


def _tuple(source: Endpoint, destination: Endpoint) -> bytes:
    kinds = _V4 if len(source.address) == 4 else _V6
    ends = _attribute(kinds[0], source.address) + _attribute(kinds[1], destination.address)
    protocol = (
        _attribute(_PROTO_NUM, bytes((socket.IPPROTO_TCP,)))
        + _attribute(_SOURCE_PORT, _PORT.pack(source.port))
        + _attribute(_DESTINATION_PORT, _PORT.pack(destination.port))
    )
    return _nested(_TUPLE_IP, ends) + _nested(_TUPLE_PROTO, protocol)


def _read(attributes: bytes) -> tuple[Endpoint, Endpoint] | None:
    try:
        original = _parsed(_parsed(attributes)[_TUPLE_ORIG])
        ends, protocol = _parsed(original[_TUPLE_IP]), _parsed(original[_TUPLE_PROTO])
        source, destination = _V4 if _V4[0] in ends else _V6
        return (
            Endpoint.from_packed(ends[source], _PORT.unpack(protocol[_SOURCE_PORT])[0]),
            Endpoint.from_packed(ends[destination], _PORT.unpack(protocol[_DESTINATION_PORT])[0]),
        )
    except (KeyError, struct.error):
        return None


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _parsed(raw: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(raw):
        length, kind = _ATTRIBUTE.unpack_from(raw, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _KIND] = raw[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found
