"""Another network namespace, asked from within over sockets that were opened there.

Sockets are opened by a thread that ends right after it has entered: no other code ever runs in a foreign
namespace. Knows nothing of pods.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TypeVar

from imds_proxy.bpf.kernel import netns_cookie
from imds_proxy.callers.interfaces import addresses, open_route
from imds_proxy.callers.sockdiag import SockDiag

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_NS_GET_USERNS = 0xB701  # linux/nsfs.h


class NetworkNamespace:
    """One network namespace. It lives as long as this is open, though all its processes are gone.

    `inode` is its number, `host_owned` whether it was made by the host's root and not within a user
    namespace, `cookie` what eBPF programs know it by (None on old kernels).
    """

    def __init__(self, pid: int, proc_root: str = "/proc") -> None:
        """That of a process. Raises OSError: the process is gone, or we may not enter."""
        handle = os.open(f"{proc_root}/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.inode = os.fstat(handle).st_ino
            self.host_owned = _is_host_owned(handle, proc_root)
            self.diag, self._route, self.cookie = within(handle, _sockets)
        finally:
            os.close(handle)

    def addresses(self) -> frozenset[bytes]:
        """Those of its interfaces, packed, but for loopback and link-local ones. Raises OSError."""
        return addresses(self._route)

    def close(self) -> None:
        """Lets go of the namespace."""
        self.diag.close()
        self._route.close()


def within(handle: int, opening: Callable[[], _T]) -> _T:
    """What `opening` returns when a thread of its own calls it in the namespace behind a file descriptor.

    Raises OSError when the namespace may not be entered, and whatever `opening` raises.
    """
    answer: list[_T] = []
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            answer.append(opening())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=enter, name="in-another-network")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return answer[0]


def _sockets() -> tuple[SockDiag, socket.socket, int | None]:
    with ExitStack() as undo:
        diag = SockDiag()
        undo.callback(diag.close)
        route = open_route()
        undo.callback(route.close)
        cookie = None
        with suppress(OSError):
            cookie = netns_cookie()
        undo.pop_all()
        return diag, route, cookie


def _is_host_owned(handle: int, proc_root: str) -> bool:
    try:
        owner = fcntl.ioctl(handle, _NS_GET_USERNS)
    except OSError:
        return False  # of a user namespace that we may not look at
    try:
        return os.fstat(owner).st_ino == os.stat(f"{proc_root}/self/ns/user").st_ino  # noqa: PTH116
    except OSError:
        return False
    finally:
        os.close(owner)
