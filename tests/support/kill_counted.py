"""Kills a process with SIGKILL, and says which connections it had accepted by then.

A program: `kill_counted.py PID`. Prints the callers' ports, one a line. The process is stopped first, for
some milliseconds, so that it accepts nothing between the count and its death.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SOCK_DIAG, _BY_FAMILY, _REQUEST, _DUMP, _DONE = 4, 20, 0x1, 0x300, 3  # linux/netlink.h, linux/sock_diag.h
_CONNECTED = 1 << 1 | 1 << 8  # ESTABLISHED, CLOSE_WAIT
_SERVICE = 80  # where its own calls go
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBBxI48x")  # inet_diag_req_v2 for every socket id
_PORTS, _INODE, _INODE_AT = struct.Struct("!4xHH"), struct.Struct("=I"), 68  # in inet_diag_msg


def connected(wire: socket.socket) -> Iterator[tuple[int, int]]:
    """Inode and the other end's port of every connected IPv4 socket here."""
    question = _QUESTION.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _CONNECTED)
    wire.send(_HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + question)
    while True:
        data = wire.recv(1 << 18)
        while data:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            if kind == _DONE:
                return
            body = data[_HEADER.size : length]
            yield _INODE.unpack_from(body, _INODE_AT)[0], _PORTS.unpack_from(body)[1]
            data = data[(length + 3) & ~3 :]


def main() -> None:
    pid = int(sys.argv[1])
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as wire:
        os.kill(pid, signal.SIGSTOP)
        while "\nState:\tT" not in Path(f"/proc/{pid}/status").read_text():
            pass
        held = set()
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                held.add(str(path.readlink()))
        sockets = list(connected(wire))
        os.kill(pid, signal.SIGKILL)
    accepted = (port for inode, port in sockets if f"socket:[{inode}]" in held)
    print(*(port for port in accepted if port != _SERVICE), sep="\n")


main()
