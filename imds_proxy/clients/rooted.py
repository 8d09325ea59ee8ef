"""Reads files as a process sees them, below its root, within a budget of time, files and bytes.

A path is resolved inside the root whatever links it holds, and only regular files and directories are
opened for reading: a FIFO does not block, a device is not touched. Knows nothing of what is read.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from imds_proxy.openat2 import open_in_root

_MAX_NAMES = 20_000  # of one directory
_PIECE = 1 << 16


class Exhausted(Exception):
    """The budget of a look is used up."""


class Budget:
    """Seconds, files and bytes that a look may take. `clock` gives seconds, monotonic."""

    def __init__(
        self,
        seconds: float = 2.0,
        files: int = 4000,
        size: int = 64 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._until = clock, clock() + seconds
        self._files, self._bytes = files, size

    def file(self) -> None:
        """Counts a file or directory. Raises Exhausted."""
        self._files -= 1
        if self._files < 0 or self._clock() > self._until:
            raise Exhausted

    def bytes(self, count: int) -> None:
        """Counts bytes read, or made of those read. Raises Exhausted."""
        self._bytes -= count
        if self._bytes < 0 or self._clock() > self._until:
            raise Exhausted


class Rooted:
    """Files below the root that `root` is a descriptor of (kept open by the caller). Every method but the
    constructor raises Exhausted; what cannot be read is None or empty."""

    def __init__(self, root: int, budget: Budget) -> None:
        self._root, self.budget = root, budget

    def read(self, path: str, limit: int = 1 << 18) -> bytes | None:
        """The first `limit` bytes of a regular file."""
        descriptor = self.open(path)
        if descriptor is None:
            return None
        try:
            return read_at(descriptor, 0, limit, self.budget)
        finally:
            os.close(descriptor)

    def text(self, path: str, limit: int = 1 << 18) -> str | None:
        """The same as UTF-8, what is none replaced."""
        raw = self.read(path, limit)
        return None if raw is None else raw.decode("utf-8", "replace")

    def open(self, path: str) -> int | None:
        """A descriptor for reading a regular file; the caller closes it."""
        return self._open(path, stat.S_ISREG, os.O_RDONLY | os.O_NONBLOCK)

    def is_directory(self, path: str) -> bool:
        """Whether there is such a directory."""
        descriptor = self._open(path, stat.S_ISDIR, None)
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def names(self, path: str) -> list[str]:
        """The names in a directory, 20,000 at most."""
        descriptor = self._open(path, stat.S_ISDIR, os.O_RDONLY | os.O_DIRECTORY)
        if descriptor is None:
            return []
        found: list[str] = []
        try:
            with suppress(OSError), os.scandir(descriptor) as entries:
                for entry in entries:
                    found.append(entry.name)
                    if len(found) >= _MAX_NAMES:
                        break
                    if len(found) % 256 == 0:
                        self.budget.bytes(256 * 32)
        finally:
            os.close(descriptor)
        return found

    def _open(self, path: str, wanted: Callable[[int], bool], flags: int | None) -> int | None:
        self.budget.file()
        try:
            held = open_in_root(self._root, path)
        except (OSError, ValueError):
            return None
        opened = reopen(held, wanted, flags)
        if opened != held:
            os.close(held)
        return opened


def reopen(held: int, wanted: Callable[[int], bool], flags: int | None) -> int | None:
    """An O_PATH descriptor opened with `flags`, if its kind (by st_mode) is wanted; with None, itself."""
    try:
        if not wanted(os.fstat(held).st_mode):
            return None
        if flags is None:
            return held
        return os.open(f"/proc/self/fd/{held}", flags | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None


def read_at(descriptor: int, offset: int, size: int, budget: Budget) -> bytes | None:
    """Up to `size` bytes at an offset; None for an error. Raises Exhausted."""
    pieces = []
    while size > 0:
        try:
            piece = os.pread(descriptor, min(size, _PIECE), offset)
        except (OSError, OverflowError, ValueError):
            return None
        if not piece:
            break
        budget.bytes(len(piece))
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)
