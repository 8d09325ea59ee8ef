"""Asks the kernel who owns a connection made for the purpose, to see that it answers.

The doctor's own few lines, so that it judges the kernel and not the daemon's code.
"""

from __future__ import annotations

import os
import socket
import struct

from imds_proxy.doctor.finding import Finding

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_CGROUP_ID = 21  # INET_DIAG_CGROUP_ID
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")
_ANSWER = struct.Struct("=BBBB48xIIIII")


def answers() -> Finding:
    """Whether sock_diag gives the right uid and inode of a connection over loopback, and its cgroup."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname(), timeout=1) as client,
        ):
            inode = os.fstat(client.fileno()).st_ino
            answer = _ask(client)
    except OSError as error:
        remedy = "callers cannot be named; load the kernel modules inet_diag and tcp_diag"
        return Finding("sock-diag", "bad", f"the kernel does not answer: {error.strerror or error}", remedy)
    if answer is None or answer[:2] != (os.geteuid(), inode):
        return Finding("sock-diag", "bad", "the kernel's answer is wrong", "callers cannot be named here")
    cgroup = "with the cgroup" if answer[2] else "without the cgroup (kernel before 5.9)"
    return Finding("sock-diag", "ok", f"the kernel names a connection's owner, {cgroup}")


def _ask(client: socket.socket) -> tuple[int, int, bool] | None:
    """uid, inode, and whether a cgroup id came too. Raises OSError."""
    local, remote = client.getsockname(), client.getpeername()
    identity = struct.pack(
        "!HH16s16sI8s",
        local[1],
        remote[1],
        socket.inet_aton(local[0]),
        socket.inet_aton(remote[0]),
        0,
        b"\xff" * 8,
    )
    body = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + identity
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1)
        netlink.send(header + body)
        data = netlink.recv(65536)
    kind = _HEADER.unpack_from(data)[1]
    if kind == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", data, _HEADER.size)[0]
        raise OSError(code, os.strerror(code))
    if kind != _SOCK_DIAG_BY_FAMILY or len(data) < _HEADER.size + _ANSWER.size:
        return None
    *_, uid, inode = _ANSWER.unpack_from(data, _HEADER.size)
    return uid, inode, _has_attribute(data[_HEADER.size + _ANSWER.size :], _CGROUP_ID)


def _has_attribute(data: bytes, wanted: int) -> bool:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if kind == wanted:
            return True
        if length < 4:
            break
        data = data[(length + 3) & ~3 :]
    return False
