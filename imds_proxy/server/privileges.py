"""What the daemon may do: the capabilities that it needs, and no way back to others.

Speaks with the kernel of this thread only, so it must be done before there is any other.
"""

from __future__ import annotations

import ctypes
import enum
import os
import pwd
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RESERVED = "imds-proxy"
"""The user that packages make for the daemon, and nothing else runs as."""

_VERSION_3 = 0x20080522  # linux/capability.h
_HEADER = struct.Struct("=Ii")
_SETS = struct.Struct("=6I")  # effective, permitted, inheritable: low words, then high
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24  # linux/prctl.h, and so on
_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 8, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_NUMBERS = range(64)
_WRITABLE_BY_OTHERS = 0o022


class Capability(enum.IntEnum):
    """Those that the daemon can use, linux/capability.h."""

    DAC_READ_SEARCH = 2
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    PERFMON = 38
    BPF = 39


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the daemon runs as."""

    uid: int
    gid: int


def account_of(user: str) -> Account | None:
    """The account that the key `user` means; None for "auto" where there is no reserved user.

    A number needs no entry in the user database. Raises ValueError with a sentence.
    """
    if user.isdigit():
        uid = int(user)
        try:
            return Account(uid, pwd.getpwuid(uid).pw_gid)
        except KeyError:
            return Account(uid, uid)
    try:
        entry = pwd.getpwnam(RESERVED if user == "auto" else user)
    except KeyError:
        if user == "auto":
            return None
        raise ValueError(f"user: this machine has no user {user}") from None
    if user == "auto" and not _mapped(entry.pw_uid):
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def permitted() -> frozenset[int]:
    """The capabilities of this thread."""
    sets = ctypes.create_string_buffer(_SETS.size)
    if _libc().capget(_HEADER.pack(_VERSION_3, 0), sets) != 0:
        raise _error()
    _, low, _, _, high, _ = _SETS.unpack(sets.raw)
    mask = low | high << 32
    return frozenset(number for number in _NUMBERS if mask >> number & 1)


def drop(account: Account | None, wanted: frozenset[Capability]) -> frozenset[int]:
    """Becomes `account` (None: stays who it is), keeps of its capabilities those in `wanted`, and can never
    gain another; what it kept. Raises OSError."""
    kept = permitted() & wanted
    _close_bounding_set(kept)
    if account is not None:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    sets = _SETS.pack(low, low, 0, high, high, 0)
    if _libc().capset(_HEADER.pack(_VERSION_3, 0), sets) != 0:
        raise _error()
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return kept


def hand_over(directory: Path, account: Account, mode: int) -> None:
    """Gives root's directory, and the files in it, to `account`; makes it where there is none.

    Only one that is surely the daemon's own: nobody else can write to it, and it holds no directory. Raises
    OSError.
    """
    if not directory.exists():
        directory.mkdir(mode=mode, parents=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        with os.scandir(descriptor) as found:
            entries = list(found)
        nested = any(entry.is_dir(follow_symlinks=False) for entry in entries)
        if status.st_uid != 0 or status.st_mode & _WRITABLE_BY_OTHERS or nested:
            return
        for entry in entries:
            os.chown(entry.name, account.uid, account.gid, dir_fd=descriptor, follow_symlinks=False)
        os.chown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)


def _mapped(uid: int) -> bool:
    """Whether this user namespace has that user: in one of a single user (`unshare -r`) root cannot leave."""
    try:
        lines = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    except OSError:
        return True
    ranges = ([int(number) for number in line.split()] for line in lines)
    return any(first <= uid < first + count for first, _, count in ranges)


def _close_bounding_set(kept: frozenset[int]) -> None:
    """No program run from here could get more. Without CAP_SETPCAP the kernel refuses, and nothing is lost:
    `no_new_privs` says the same."""
    for number in _NUMBERS:
        if number not in kept and _libc().prctl(_PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) == 1:
            _libc().prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0)


def _prctl(option: int, value: int) -> None:
    none = ctypes.c_ulong(0)
    if _libc().prctl(option, ctypes.c_ulong(value), none, none, none) != 0:
        raise _error()


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
