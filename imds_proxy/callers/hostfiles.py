"""Which host path is which file: an executable is known by device and inode, never by what it is called.

Knows nothing of processes' other facts; a path that cannot be looked up in the host's root is no name.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from cachetools import LRUCache

from imds_proxy.callers.procfs import Executable, ProcessView
from imds_proxy.openat2 import open_in_root

_HOST_ROOT = "/proc/1/root"

# Of the time that looking up all watched paths takes, how long it is not done again; seconds at most.
_REST, _LONGEST_REST = 19, 0.5

FileKey = tuple[int, int, int, int, int]


class HostFiles:
    """Names files in the host's root (that of pid 1). `watched` are paths that rules name, symbolic links
    allowed; `hashed` says that a rule asks for a SHA-256. Thread-safe.

    Where rules name thousands of files, they are not looked up for each process: that one of them has become
    another name of a file is noticed 0.5 s later at most. That it has ceased to be one is noticed at once.
    """

    def __init__(
        self,
        watched: Iterable[str] = (),
        hashed: bool = False,
        root: str = _HOST_ROOT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watched = tuple(watched)
        self._clock = clock
        self._aliases: Mapping[tuple[int, int], list[str]] = {}
        self._aliases_until = float("-inf")
        self._hashed = hashed
        self._root = None if _is_our_root(root) else root
        self._digests: LRUCache[FileKey, str] = LRUCache(256)
        self._lock = threading.Lock()

    def names_of(self, executable: Executable) -> frozenset[str]:
        """The paths that are this very file now: its own, and the watched ones. Blocks."""
        file = (executable.device, executable.inode)
        candidates = (executable.path, *self._watched_now().get(file, ()))
        return frozenset(path for path in candidates if self._file_at(path) == file)

    def sha256_of(self, view: ProcessView, executable: Executable) -> str | None:
        """The digest of a process's executable, remembered by the file's identity and times. Blocks."""
        if not self._hashed:
            return None
        key = view.executable_key()
        if key is None or key[:2] != (executable.device, executable.inode):
            return None
        with self._lock:
            known: str | None = self._digests.get(key)
        if known is not None:
            return known
        digest = view.digest()
        if digest is None or view.executable_key() != key:
            return None  # it was written to, or another program runs, while it was read
        with self._lock:
            self._digests[key] = digest
        return digest

    def _watched_now(self) -> Mapping[tuple[int, int], list[str]]:
        """Watched paths by the file that they are, or were a moment ago."""
        began = self._clock()
        with self._lock:
            if began < self._aliases_until:
                return self._aliases
        found: dict[tuple[int, int], list[str]] = {}
        for path in self._watched:
            if (file := self._file_at(path)) is not None:
                found.setdefault(file, []).append(path)
        ended = self._clock()
        with self._lock:
            self._aliases = found
            self._aliases_until = ended + min(_REST * (ended - began), _LONGEST_REST)
        return found

    def _file_at(self, path: str) -> tuple[int, int] | None:
        if not path.startswith("/"):
            return None
        try:
            found = os.stat(path) if self._root is None else self._stat_in_root(self._root, path)  # noqa: PTH116
        except (OSError, ValueError):
            return None
        return found.st_dev, found.st_ino

    def _stat_in_root(self, root: str, path: str) -> os.stat_result:
        """Resolves as a process in that root would: an absolute link stays inside. Raises OSError."""
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            descriptor = open_in_root(directory, path)
            try:
                return os.fstat(descriptor)
            finally:
                os.close(descriptor)
        finally:
            os.close(directory)


def _is_our_root(root: str) -> bool:
    """Whether that root is ours, or may not be looked at (then ours is all that there is to compare)."""
    try:
        theirs, ours = os.stat(root), os.stat("/")  # noqa: PTH116
    except OSError:
        return True
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
