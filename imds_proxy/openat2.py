"""openat2(2): a path resolved inside a root, as a process in that root would resolve it.

Knows one system call, and nothing of what is opened.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import lru_cache

_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10  # linux/openat2.h
_OPEN_HOW = struct.Struct("=QQQ")  # flags, mode, resolve


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def open_in_root(root: int, path: str | bytes, flags: int = os.O_PATH) -> int:
    """A descriptor (close-on-exec) of a path below the directory `root`: absolute links and `..` stay
    inside, and /proc's own links lead nowhere. The last link is followed. Raises OSError, and ValueError
    for a NUL."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    descriptor = int(_library().syscall(_OPENAT2, root, name, how, ctypes.c_size_t(len(how))))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(name))
    return descriptor
