"""A configuration file's text, read once through one descriptor, from a path nobody else can change.

Knows nothing of YAML or keys.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

LARGEST_FILE = 8 * 1024 * 1024
"""Bytes; a larger file is refused unread. Ten thousand rules with their comments take some 2 to 6 MiB."""

_MOST_SYMLINKS = 40


class FileRefused(Exception):
    """The file is missing, unreadable or not to be trusted; the message is a sentence for the user."""


def read_text(path: Path, *, check_owner: bool = True) -> str:
    """The file's text.

    With `check_owner`, root refuses a path of which any component belongs to, or can be written by, anybody
    else; symbolic links are followed one by one and checked, too, and what lies on a read-only mount passes.
    Others refuse a file that everybody can write. Raises FileRefused.
    """
    strict = check_owner and _is_root()
    try:
        descriptor = _open(path, strict=strict)
    except FileNotFoundError:
        raise FileRefused("no such file") from None
    except OSError as error:
        raise FileRefused(f"cannot be opened: {error.strerror}") from None
    try:
        _check_file(descriptor, strict=strict, check_owner=check_owner)
        data = _read_unchanged(descriptor)
    except OSError as error:
        raise FileRefused(f"cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileRefused(f"not UTF-8 on line {line}; only UTF-8 is allowed") from None


def _is_root() -> bool:
    """Whether owners mean anything to us.

    In a user namespace of one user (`unshare -r`) uid 0 is that user and all others look the same.
    """
    if os.geteuid() != 0:
        return False
    try:
        lines = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    except OSError:
        return True
    return sum(int(line.split()[2]) for line in lines) != 1


def _open(path: Path, *, strict: bool) -> int:
    """Descends from the root, one descriptor for each directory, so that what was checked is what is used."""
    pending = [*reversed((Path.cwd() / path).parts[1:])]
    # The names beside the descriptors are for messages only.
    stack: list[tuple[str, int]] = [("/", os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))]
    links = 0
    try:
        if strict:
            _check_component(*stack[0])
        while pending:
            name = pending.pop()
            if name == "..":
                if len(stack) > 1:
                    os.close(stack.pop()[1])
                continue
            if name in {"", "."}:
                continue
            parent, directory = stack[-1]
            shown = parent.rstrip("/") + "/" + name
            entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            kept = False
            try:
                mode = os.fstat(entry).st_mode
                if strict and not stat.S_ISREG(mode):
                    _check_component(shown, entry)
                if stat.S_ISLNK(mode):
                    links += 1
                    if links > _MOST_SYMLINKS:
                        raise FileRefused("too many symbolic links")
                    target = os.readlink("", dir_fd=entry)
                    if target.startswith("/"):
                        while len(stack) > 1:
                            os.close(stack.pop()[1])
                    pending.extend(reversed(target.split("/")))
                elif pending:
                    stack.append((shown, entry))
                    kept = True
                elif stat.S_ISREG(mode):
                    # What this opens is judged by its own descriptor, whatever bears the name by now.
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                    return os.open(name, flags, dir_fd=directory)
                else:
                    raise FileRefused("not a regular file")
            finally:
                if not kept:
                    os.close(entry)
        raise FileRefused("a directory, not a file")
    finally:
        for _, descriptor in stack:
            os.close(descriptor)


def _check_component(shown: str, descriptor: int) -> None:
    """Refuses a directory or link that somebody but root could have put there or could change."""
    status = os.fstat(descriptor)
    if _read_only(descriptor):
        return
    if status.st_uid not in (0, os.geteuid()):
        raise FileRefused(f"{shown} belongs to uid {status.st_uid}; every part of the path must be root's")
    # In a sticky directory others can add names but not replace root's, and the next part must be root's.
    if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise FileRefused(f"{shown} can be written by others; only root may write along the path")


def _check_file(descriptor: int, *, strict: bool, check_owner: bool) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise FileRefused("not a regular file")
    if status.st_size > LARGEST_FILE:
        raise FileRefused(f"{status.st_size} bytes; at most {LARGEST_FILE} are allowed")
    if not check_owner or _read_only(descriptor):
        return
    if strict and status.st_uid not in (0, os.geteuid()):
        raise FileRefused(f"belongs to uid {status.st_uid}; the file must be root's")
    if status.st_mode & (0o022 if strict else 0o002):
        raise FileRefused(f"can be written by others (mode {status.st_mode & 0o777:04o}); use chmod go-w")


def _read_only(descriptor: int) -> bool:
    return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)


def _read_unchanged(descriptor: int) -> bytes:
    before = os.fstat(descriptor)
    parts: list[bytes] = []
    left = LARGEST_FILE + 1
    while left > 0:
        part = os.read(descriptor, min(left, 65536))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    data = b"".join(parts)
    after = os.fstat(descriptor)
    same = (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
    if not same or len(data) != before.st_size:
        raise FileRefused("changed while it was read; try again")
    return data
