"""The mounted cgroup v2 tree: from a cgroup's id to its path and processes, and back.

Knows nothing of sockets or units; without a v2 mount or the rights it answers None.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

# Where systemd mounts it: on v2 hosts, and on hybrid ones.
MOUNTS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")

_FILE_HANDLE = struct.Struct("=IiQ")  # struct file_handle: length of the handle, its type, the id
_FILEID_KERNFS = 0xFE  # linux/exportfs.h


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One cgroup: its id, and its path; None where it is gone, or without CAP_DAC_READ_SEARCH."""

    id: int
    path: str | None
    is_root: bool


class CgroupTree:
    """One mount of the v2 hierarchy; empty (every answer None) when `mount` is None."""

    def __init__(self, mount: str | None) -> None:
        self._mount = mount
        self._library = ctypes.CDLL(None, use_errno=True)
        self._directory: int | None = None
        self.root_id: int | None = None
        if mount is not None:
            self._directory = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self.root_id = os.fstat(self._directory).st_ino

    @classmethod
    def find(cls, mounts: tuple[str, ...] = MOUNTS) -> CgroupTree:
        """The first of `mounts` that is a v2 hierarchy."""
        for mount in mounts:
            if Path(mount, "cgroup.procs").exists() and Path(mount, "cgroup.controllers").exists():
                try:
                    return cls(mount)
                except OSError:
                    continue
        return cls(None)

    @property
    def mount(self) -> str | None:
        """Where it is mounted."""
        return self._mount

    def close(self) -> None:
        """Lets go of the mount."""
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    def id_of(self, path: str) -> int | None:
        """The id of the cgroup at `path`; None if it is not below this mount (other cgroup namespaces)."""
        if self._directory is None or "/.." in path:
            return None
        try:
            return os.stat(path.lstrip("/") or ".", dir_fd=self._directory).st_ino
        except OSError:
            return None

    def cgroup(self, cgroup_id: int) -> Cgroup:
        """What can be told now of the cgroup with this id: four system calls."""
        return Cgroup(cgroup_id, self._path_of(cgroup_id), cgroup_id == self.root_id)

    def processes(self, path: str) -> list[int]:
        """The pids in that cgroup, not those below it; empty when it cannot be read."""
        if self._mount is None:
            return []
        try:
            text = Path(self._mount + path, "cgroup.procs").read_text()
            return [int(line) for line in text.split() if line != "0"]  # 0: not in our pid namespace
        except (OSError, ValueError):
            return []

    def _path_of(self, cgroup_id: int) -> str | None:
        if self._directory is None or self._mount is None:
            return None
        handle = _FILE_HANDLE.pack(8, _FILEID_KERNFS, cgroup_id)
        descriptor = self._library.open_by_handle_at(self._directory, handle, os.O_PATH | os.O_CLOEXEC)
        if descriptor < 0:
            return None
        try:
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        except OSError:
            return None
        finally:
            os.close(descriptor)
        if path == self._mount:
            return "/"
        return path.removeprefix(self._mount) if path.startswith(self._mount + "/") else None
