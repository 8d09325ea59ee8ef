"""One process as /proc shows it. Reads only; a process that vanishes is an answer, not an error.

Knows nothing of sockets' owners, policy or display: bytes and paths come out as the kernel has them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

_CMDLINE_LIMIT = 4096
_FILE_LIMIT = 16384
# Not the mount namespace: a hardened service has one of its own (PrivateTmp=) and is no container.
_CONTAINING = ("pid", "user", "cgroup")
_REREAD = ("cmdline", "cgroup")
_DELETED = " (deleted)"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Stat:
    """Of /proc/PID/stat: `comm` (a claim), parent's pid, start time in clock ticks since boot."""

    comm: bytes
    parent: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Executable:
    """What /proc/PID/exe names. `path` keeps the kernel's " (deleted)"; device and inode are facts."""

    path: str
    device: int
    inode: int

    @property
    def deleted(self) -> bool:
        """Whether the kernel says that the file is gone from its path."""
        return self.path.endswith(_DELETED)


class ProcessView:
    """One process, held by its /proc directory: once it is gone every read fails, even if its pid is reused.

    Closed by `close`, or when nothing refers to it any more. Raises OSError (ProcessLookupError,
    FileNotFoundError, PermissionError) when it cannot be opened.
    """

    __slots__ = ("_directory", "_open", "pid")

    def __init__(self, pid: int, proc_root: str = "/proc") -> None:
        self.pid = pid
        self._open: list[int] = []
        self._directory = os.open(f"{proc_root}/{pid}", _DIRECTORY)
        self._open.append(self._directory)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> ProcessView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the process."""
        while self._open:
            os.close(self._open.pop())

    def keep(self) -> None:
        """Makes ready for `reread`, at the cost of two more open files. Raises OSError."""
        for name in _REREAD:
            self._open.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory))

    def reread(self) -> tuple[int, int, bytes, bytes] | None:
        """Device and inode of the executable, command line and cgroup as they are now, after `keep`: all
        that exec or a move can change, in three system calls. None when it is gone."""
        try:
            file = os.stat("exe", dir_fd=self._directory)
            cmdline = os.pread(self._open[1], _CMDLINE_LIMIT, 0)
            return file.st_dev, file.st_ino, cmdline, os.pread(self._open[2], _FILE_LIMIT, 0)
        except OSError:
            return None

    def owner_uid(self) -> int | None:
        """The uid that /proc shows as the directory's owner: the effective one, or 0 if not dumpable."""
        try:
            return os.fstat(self._directory).st_uid
        except OSError:
            return None

    def stat(self) -> Stat | None:
        """None when the process is gone."""
        text = self._read("stat", _FILE_LIMIT)
        return parse_stat(text) if text else None

    def leader(self) -> int | None:
        """The process whose thread this is: its own pid, but /proc/TID is there too, though never listed."""
        found = re.search(rb"^Tgid:\s*(\d+)$", self._read("status", _FILE_LIMIT) or b"", re.MULTILINE)
        return int(found[1]) if found else None

    def uids(self) -> tuple[int, int, int, int] | None:
        """Real, effective, saved and file system uid, in our user namespace's numbers."""
        text = self._read("status", _FILE_LIMIT)
        return parse_uids(text) if text else None

    def gids(self) -> frozenset[int]:
        """Effective and supplementary groups, in our user namespace's numbers; empty when it is gone."""
        return parse_gids(self._read("status", _FILE_LIMIT) or b"")

    def namespaces(self) -> tuple[str, ...] | None:
        """The pid, user and cgroup namespace; None when we may not look, or it is gone."""
        try:
            return tuple(os.readlink(f"ns/{kind}", dir_fd=self._directory) for kind in _CONTAINING)
        except OSError:
            return None

    def absolute(self, path: str) -> str | None:
        """A path relative to the process's working directory made absolute, if there is such a file."""
        try:
            os.stat(f"cwd/{path}", dir_fd=self._directory)
            directory = os.readlink("cwd", dir_fd=self._directory)
        except (OSError, ValueError):
            return None
        return os.path.normpath(os.path.join(directory, path))  # noqa: PTH118 - a path of another process

    def executable_key(self) -> tuple[int, int, int, int, int] | None:
        """Device, inode, size and times of the executable file: another key is another content."""
        try:
            file = os.stat("exe", dir_fd=self._directory)
        except OSError:
            return None
        return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns

    def digest(self) -> str | None:
        """The SHA-256 of the executable file in lower-case hex; None when it cannot be read."""
        try:
            with os.fdopen(os.open("exe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory), "rb") as file:
                digest = hashlib.sha256()
                while piece := file.read(1 << 18):
                    digest.update(piece)
        except OSError:
            return None
        return digest.hexdigest()

    def executable(self) -> Executable | None:
        """None for a kernel thread, a process that is gone, or one that we may not look at."""
        try:
            path = os.readlink("exe", dir_fd=self._directory)
            file = os.stat("exe", dir_fd=self._directory)
        except OSError:
            return None
        return Executable(path, file.st_dev, file.st_ino)

    def cmdline(self) -> bytes:
        """The first 4 KiB of the command line, words ended by NUL; empty when there is none."""
        return self._read("cmdline", _CMDLINE_LIMIT) or b""

    def thread_comm(self, thread: int) -> bytes | None:
        """What one of its threads calls itself; None when there is no such thread."""
        text = self._read(f"task/{thread}/comm", _FILE_LIMIT)
        return text.removesuffix(b"\n") if text else None

    def cgroup(self) -> bytes:
        """The text of /proc/PID/cgroup; empty when the process is gone."""
        return self._read("cgroup", _FILE_LIMIT) or b""

    def holds(self, descriptor: int, inode: int) -> bool:
        """Whether that descriptor is the socket with this inode, now."""
        try:
            return os.readlink(f"fd/{descriptor}", dir_fd=self._directory) == f"socket:[{inode}]"
        except OSError:
            return False

    def descriptor_count(self) -> int:
        """How many descriptors it has; 0 where the kernel does not tell (before Linux 6.2)."""
        try:
            return os.stat("fd", dir_fd=self._directory).st_size
        except OSError:
            return 0

    def sockets(self, limit: int) -> dict[int, int]:
        """The inodes of its sockets, each with its descriptor; `limit` descriptors are looked at.

        Raises OSError.
        """
        found: dict[int, int] = {}
        directory = os.open("fd", _DIRECTORY, dir_fd=self._directory)
        try:
            with os.scandir(directory) as entries:
                for entry, _ in zip(entries, range(limit), strict=False):
                    link = _link(entry.name, directory) or ""
                    if link.startswith("socket:["):
                        found[int(link[8:-1])] = int(entry.name)
        finally:
            os.close(directory)
        return found

    def find_socket(self, inode: int, limit: int) -> tuple[int | None, int]:
        """The descriptor of that socket and how many descriptors were looked at, `limit` at most.

        Raises PermissionError when we may not look.
        """
        wanted = f"socket:[{inode}]"
        looked = 0
        try:
            directory = os.open("fd", _DIRECTORY, dir_fd=self._directory)
        except PermissionError:
            raise
        except OSError:
            return None, 0
        try:
            # scandir reads the directory piece by piece: a process with 100,000 files is not listed whole.
            with os.scandir(directory) as entries:
                for entry in entries:
                    if looked >= limit:
                        break
                    looked += 1
                    if _link(entry.name, directory) == wanted:
                        return int(entry.name), looked
        except OSError:
            return None, looked
        finally:
            os.close(directory)
        return None, looked

    def _read(self, name: str, limit: int) -> bytes | None:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except OSError:
            return None
        try:
            return os.read(descriptor, limit)
        except OSError:
            return None
        finally:
            os.close(descriptor)


def parse_stat(text: bytes) -> Stat | None:
    """/proc/PID/stat; the name in parentheses may itself hold parentheses, spaces and newlines."""
    start, end = text.find(b"("), text.rfind(b")")
    fields = text[end + 1 :].split()
    if start < 0 or end < start or len(fields) < 20:
        return None
    try:
        return Stat(text[start + 1 : end], int(fields[1]), int(fields[19]))  # fields 4 and 22 of proc(5)
    except ValueError:
        return None


def parse_uids(text: bytes) -> tuple[int, int, int, int] | None:
    """The four numbers of the `Uid:` line of /proc/PID/status."""
    for line in text.split(b"\n"):
        if line.startswith(b"Uid:"):
            try:
                real, effective, saved, files = (int(word) for word in line.split()[1:5])
            except ValueError:
                return None
            return real, effective, saved, files
    return None


def parse_gids(text: bytes) -> frozenset[int]:
    """Effective gid and supplementary groups of /proc/PID/status."""
    found: set[int] = set()
    for line in text.split(b"\n"):
        words = line.split()
        if words[:1] == [b"Gid:"]:
            found.update(int(word) for word in words[2:3])
        elif words[:1] == [b"Groups:"]:
            found.update(int(word) for word in words[1:])
    return frozenset(found)


def parse_cmdline(raw: bytes) -> tuple[bytes, ...]:
    """The words of a command line as read by `cmdline`; a last word cut by the limit stays as it is."""
    if not raw:
        return ()
    return tuple(raw.removesuffix(b"\0").split(b"\0"))


def pids_newest_first(proc_root: str = "/proc") -> list[int]:
    """Every pid, the most recently given first: downwards from the kernel's last pid, then from the top."""
    pids = [int(name) for name in os.listdir(proc_root) if name.isdecimal()]  # noqa: PTH208 - hot in a scan
    return newest_first(pids, proc_root)


def newest_first(pids: list[int], proc_root: str = "/proc") -> list[int]:
    """These pids, the most recently given first; since numbers wrap round, that is not always the highest."""
    last = last_pid(proc_root)
    return sorted(pids, key=lambda pid: (pid <= last, pid), reverse=True)


def parents_of(parent: int, proc_root: str = "/proc", limit: int = 32) -> Iterator[ProcessView]:
    """Views of the ancestors up to init, nearest first, from pid `parent` on; each closed after its turn."""
    seen: set[int] = set()
    while parent > 0 and parent not in seen and len(seen) < limit:
        seen.add(parent)
        try:
            view = ProcessView(parent, proc_root)
        except OSError:
            return
        with view:
            stat = view.stat()
            if stat is None:
                return
            yield view
        parent = stat.parent


def last_pid(proc_root: str = "/proc") -> int:
    """The pid that was given last, 0 where that is not known."""
    try:
        descriptor = os.open(f"{proc_root}/loadavg", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(descriptor, 256).split()[4])
    except (OSError, IndexError, ValueError):
        return 0
    finally:
        os.close(descriptor)


def _link(name: str, directory: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None
