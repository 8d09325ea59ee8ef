"""A user and network namespace of the demo's own, in which 100.100.100.200 is an address of `lo`.

Knows only how to get in and set it up; nothing of the host is touched.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess

# linux/sockios.h and linux/if.h
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_IFF_UP_RUNNING = 0x1 | 0x40


def entry_command() -> tuple[str, ...] | None:
    """The words before a command that is to run in a namespace of its own; None where none can be had."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    words = (unshare, "--net") if os.geteuid() == 0 else (unshare, "--user", "--map-root-user", "--net")
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if tried.returncode == 0 else None


def take_address(address: str) -> None:
    """Brings `lo` up and gives it `address`/32. To be called inside. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP_RUNNING))
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.255")):
            place = struct.pack("16sHH4s8x", b"lo:0", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(handle, request, place)
