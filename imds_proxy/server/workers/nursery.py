"""Where workers come from: a process forked while the daemon had one thread and no secret, which forks them.

It holds the listening sockets and nothing else that the daemon has open, and ends with it.
"""

from __future__ import annotations

import array
import ctypes
import gc
import os
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from imds_proxy.server.workers.channel import pair

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # linux/prctl.h
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)  # the daemon tells its own
_STANDARD = (0, 1, 2)

Work = Callable[[int, socket.socket, Sequence[socket.socket]], None]
"""What a worker does: its place, its end of a channel to the daemon, the listening sockets."""


class Nursery:
    """The daemon's hold on it. `sockets` listen; `work` is done by each worker until it returns."""

    def __init__(self, sockets: Sequence[socket.socket], work: Work) -> None:
        """Forks. Raises OSError."""
        self._control, theirs = pair()
        daemon = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            _forever(daemon, theirs, sockets, work)
        theirs.close()

    def bear(self, place: int) -> socket.socket:
        """A new worker's channel, which ends where there is none. Raises OSError: there is no nursery."""
        ours, theirs = pair()
        with theirs:
            try:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
                self._control.sendmsg([bytes((place,))], rights, socket.MSG_DONTWAIT)
            except OSError:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """The end of it, and of all workers that there are still."""
        self._control.close()
        with suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _forever(daemon: int, control: socket.socket, sockets: Sequence[socket.socket], work: Work) -> None:
    """The nursery's life; never returns."""
    try:
        for one in _IGNORED:
            signal.signal(one, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
        _ends_with(daemon)
        gc.collect()
        gc.freeze()  # what is here stays, and stays shared
        _close_all_but({*_STANDARD, control.fileno(), *(one.fileno() for one in sockets)})
        _call(b"imds-nursery")
        nursery = os.getpid()
        while True:
            data, rights, _, _ = control.recvmsg(1, socket.CMSG_LEN(array.array("i", [0]).itemsize))
            if not data:
                break
            number = array.array("i", rights[0][2])[0]
            if os.fork():
                os.close(number)
                continue
            _ends_with(nursery)
            control.close()
            _call(b"imds-worker")
            work(data[0], socket.socket(fileno=number), sockets)
            break
    finally:
        os._exit(0)


def _ends_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before that
        os._exit(0)


def _call(name: bytes) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)


def _close_all_but(kept: Collection[int]) -> None:
    for name in [entry.name for entry in Path("/proc/self/fd").iterdir()]:
        if int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))
