"""A process held in sight: its root and its executable are held open, and outlive it.

To take it is cheap enough for the event loop. What /proc shows of the process's memory (command line,
environment, maps) is read when it is asked for, in a thread: a hostile process can make such a read hang.
Knows nothing of packages.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

_CMDLINE, _ENVIRON, _MAPS = 1 << 16, 1 << 17, 1 << 18  # bytes
_MAX_FILES = 512  # descriptors that are looked at
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Sight:
    """`root` and `executable` are descriptors (O_PATH), None where they could not be had;
    `directory_path` and `executable_path` as the process sees them; `process` is its /proc directory."""

    root: int | None
    executable: int | None
    directory_path: str | None
    executable_path: str | None
    chroot: str
    process: int

    def __enter__(self) -> Sight:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the process."""
        for one in (self.root, self.executable, self.process):
            if one is not None:
                with suppress(OSError):
                    os.close(one)

    def cmdline(self) -> tuple[str, ...]:
        """The words of its command line, empty when it has ended. Blocks."""
        text = _read(self.process, "cmdline", _CMDLINE).removesuffix(b"\0")
        return tuple(map(os.fsdecode, text.split(b"\0"))) if text else ()

    def environ(self) -> bytes:
        """Its environment as it was at exec, raw; empty when it has ended. Blocks."""
        return _read(self.process, "environ", _ENVIRON)

    def mapped(self) -> tuple[str, ...]:
        """The files that it has mapped, each once, as it sees them; empty when it has ended. Blocks."""
        paths: dict[str, None] = {}
        for line in _read(self.process, "maps", _MAPS).split(b"\n"):
            fields = line.split(None, 5)
            path = _inside(self.chroot, os.fsdecode(fields[5])) if len(fields) == 6 else None
            if path is not None:
                paths[path] = None
        return tuple(paths)

    def archives(self) -> list[tuple[str, int]]:
        """The Java archives among its first 512 open files: path, and an O_PATH descriptor that the caller
        closes; empty when it has ended."""
        found: list[tuple[str, int]] = []
        try:
            directory = os.open("fd", _DIRECTORY, dir_fd=self.process)
        except OSError:
            return found
        try:
            with suppress(OSError), os.scandir(directory) as entries:
                for number, entry in enumerate(entries):
                    if number >= _MAX_FILES:
                        break
                    with suppress(OSError):
                        path = os.readlink(entry.name, dir_fd=directory)
                        if path.endswith((".jar", ".war")) and path.startswith("/"):
                            held = os.open(entry.name, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
                            found.append((path, held))
        finally:
            os.close(directory)
        return found


def take_sight(pid: int, start_ticks: int | None, proc_root: str = "/proc") -> Sight | None:
    """The process of that pid, None when it has ended, is another by now (`start_ticks` differs), or may
    not be looked at."""
    try:
        process = os.open(f"{proc_root}/{pid}", _DIRECTORY)
    except OSError:
        return None
    if start_ticks is not None and _start_ticks(_read(process, "stat", 4096)) != start_ticks:
        os.close(process)
        return None
    root = _held(process, "root")
    if root is None:
        os.close(process)
        return None
    chroot = _link(process, "root") or "/"
    return Sight(
        root=root,
        executable=_held(process, "exe"),
        directory_path=_inside(chroot, _link(process, "cwd")),
        executable_path=_inside(chroot, _link(process, "exe")),
        chroot=chroot,
        process=process,
    )


def _start_ticks(text: bytes) -> int | None:
    fields = text.rpartition(b")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[19].isdigit() else None


def _inside(chroot: str, path: str | None) -> str | None:
    """A path of /proc as the process sees it: without the way to its root. One outside is None."""
    if path is None or not path.startswith("/"):
        return None
    path = path.removesuffix(" (deleted)")
    if chroot == "/":
        return path
    return path[len(chroot) :] or "/" if path == chroot or path.startswith(f"{chroot}/") else None


def _held(process: int, name: str) -> int | None:
    try:
        return os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=process)
    except OSError:
        return None


def _link(process: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=process)
    except OSError:
        return None


def _read(process: int, name: str, limit: int) -> bytes:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    except OSError:
        return b""
    pieces = []
    try:
        while limit > 0:
            piece = os.read(descriptor, limit)  # /proc gives a page at a time
            if not piece:
                break
            pieces.append(piece)
            limit -= len(piece)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return b"".join(pieces)
