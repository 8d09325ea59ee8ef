"""Which host path is which file: an executable is known by device and inode, never by what it is called.

Knows nothing of processes' other facts; a path that cannot be looked up in the host's root is no name.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from cachetools import LRUCache

from imds_proxy.callers.procfs import Executable, ProcessView
from imds_proxy.openat2 import open_in_root

_HOST_ROOT = "/proc/1/root"

FileKey = tuple[int, int, int, int, int]


class HostFiles:
    """Names files in the host's root (that of pid 1). `watched` are paths that rules name, symbolic links
    allowed; `hashed` says that a rule asks for a SHA-256. Thread-safe."""

    def __init__(self, watched: Iterable[str] = (), hashed: bool = False, root: str = _HOST_ROOT) -> None:
        self._watched = tuple(watched)
        self._hashed = hashed
        self._root = None if _is_our_root(root) else root
        self._digests: LRUCache[FileKey, str] = LRUCache(256)
        self._lock = threading.Lock()

    def names_of(self, executable: Executable) -> frozenset[str]:
        """The paths that are this very file now: its own, and the watched ones. Blocks."""
        file = (executable.device, executable.inode)
        return frozenset(path for path in (executable.path, *self._watched) if self._file_at(path) == file)

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
