"""bpf(2): maps, programs and links as file descriptors. Knows nothing of what they are for."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _PROG_LOAD, _PIN, _PINNED = 0, 1, 2, 5, 6, 7
_INFO, _LINK_CREATE, _LINK_UPDATE = 15, 28, 29
_ARRAY, _LRU_HASH = 2, 9
_LOG_SIZE = 65536
_LICENCE, _NAME = b"Apache-2.0", b"imds_proxy"
_MAP_INFO = struct.Struct("=IIIIII16s")  # type, id, key and value size, entries, flags, name
_LINK_INFO = struct.Struct("=IIIxxxxQI")  # type, id, program; of a cgroup link: cgroup, place
_CGROUP_LINK = 3
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, since 5.14


class Kind(IntEnum):
    """Kinds of program."""

    SOCK_OPS = 13
    SOCK_ADDR = 18


class Place(IntEnum):
    """Where in a cgroup a program is attached."""

    SOCK_OPS = 3
    CONNECT4 = 10
    CONNECT6 = 11
    PEER4 = 29
    PEER6 = 30


@dataclass(frozen=True, slots=True)
class MapShape:
    """Kind and sizes of a map, in bytes and entries; `name` of at most 15 characters."""

    name: str
    key_size: int
    value_size: int
    entries: int
    lru: bool = True  # forgets what was used least recently; otherwise an array, key_size 4

    def pack(self) -> bytes:
        """The attributes of BPF_MAP_CREATE."""
        kind = _LRU_HASH if self.lru else _ARRAY
        sizes = kind, self.key_size, self.value_size, self.entries
        return struct.pack("=IIIIIII16s", *sizes, 0, 0, 0, self.name.encode("ascii"))


class Bpf:
    """The system call. Raises OSError, with the verifier's last words where it has any."""

    def __init__(self) -> None:
        machine = os.uname().machine
        self._number = _SYSCALL.get(machine)
        if self._number is None:
            raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {machine}")
        self._library = ctypes.CDLL(None, use_errno=True)

    def map(self, shape: MapShape) -> int:
        """A new map's file descriptor."""
        return self._call(_MAP_CREATE, shape.pack(), "map")

    def is_map(self, descriptor: int, shape: MapShape) -> bool:
        """Whether a descriptor from elsewhere is a map of this shape."""
        info = self._info(descriptor, _MAP_INFO.size)
        if info is None:
            return False
        kind, _, *sizes, _, name = _MAP_INFO.unpack(info)
        found = struct.pack("=IIII16s", kind, *sizes, name)
        wanted = shape.pack()
        return found == wanted[:16] + wanted[28:]

    def put(self, descriptor: int, key: bytes, value: bytes) -> None:
        """Puts a value into a map."""
        key_buffer = ctypes.create_string_buffer(key, len(key))
        value_buffer = ctypes.create_string_buffer(value, len(value))
        places = ctypes.addressof(key_buffer), ctypes.addressof(value_buffer)
        self._call(_MAP_UPDATE, struct.pack("=IIQQQ", descriptor, 0, *places, 0), "map value")

    def program(self, kind: Kind, place: Place, code: bytes) -> int:
        """A loaded program's file descriptor."""
        instructions = ctypes.create_string_buffer(code, len(code))
        licence = ctypes.create_string_buffer(_LICENCE)
        log = ctypes.create_string_buffer(_LOG_SIZE)
        attributes = struct.pack(
            "=IIQQIIQII16sII",
            *(kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)),
            *(1, _LOG_SIZE, ctypes.addressof(log), 0, 0, _NAME, 0, place),
        )
        try:
            return self._call(_PROG_LOAD, attributes, "program")
        except OSError as error:
            said = log.value.decode("ascii", "replace").strip().splitlines()
            words = next((line for line in reversed(said) if not line.startswith("processed ")), "")
            raise OSError(error.errno, f"{error.strerror}{f': {words}' if words else ''}") from None

    def link(self, program: int, cgroup: int, place: Place) -> int:
        """Attaches to a cgroup; the kernel detaches when the last holder of this descriptor is gone."""
        return self._call(_LINK_CREATE, struct.pack("=IIII", program, cgroup, place, 0), "link")

    def is_link(self, descriptor: int, place: Place) -> bool:
        """Whether a descriptor from elsewhere is a link to this place of a cgroup that is still there."""
        info = self._info(descriptor, _LINK_INFO.size)
        if info is None:
            return False
        kind, _, _, cgroup, where = _LINK_INFO.unpack(info)
        return bool(kind == _CGROUP_LINK and cgroup != 0 and where == place)

    def replace(self, link: int, program: int) -> None:
        """Puts another program in the place of a link's: no connect comes between."""
        self._call(_LINK_UPDATE, struct.pack("=IIII", link, program, 0, 0), "link")

    def pin(self, descriptor: int, path: str) -> None:
        """Makes a link outlive its holders, at a path below a mount of bpffs; to remove it is to detach."""
        name = ctypes.create_string_buffer(path.encode())
        self._call(_PIN, struct.pack("=QII", ctypes.addressof(name), descriptor, 0), "pin")

    def pinned(self, path: str) -> int:
        """The descriptor of what is pinned at a path. Raises FileNotFoundError."""
        name = ctypes.create_string_buffer(path.encode())
        return self._call(_PINNED, struct.pack("=QII", ctypes.addressof(name), 0, 0), "pinned link")

    def _info(self, descriptor: int, size: int) -> bytes | None:
        answer = ctypes.create_string_buffer(size)
        try:
            self._call(_INFO, struct.pack("=IIQ", descriptor, size, ctypes.addressof(answer)), "info")
        except OSError:
            return None
        return answer.raw

    def _call(self, command: int, attributes: bytes, what: str) -> int:
        buffer = ctypes.create_string_buffer(attributes, len(attributes))
        found: int = self._library.syscall(self._number, command, buffer, len(attributes))
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")
        return found


class MapReader:
    """Looks up one key after another in a map; not for two threads at once."""

    def __init__(self, bpf: Bpf, descriptor: int, key_size: int, value_size: int) -> None:
        self._syscall, self._number = bpf._library.syscall, bpf._number
        self._key = ctypes.create_string_buffer(key_size)
        self._value = ctypes.create_string_buffer(value_size)
        places = ctypes.addressof(self._key), ctypes.addressof(self._value)
        self._attributes = ctypes.create_string_buffer(struct.pack("=IIQQQ", descriptor, 0, *places, 0), 32)

    def get(self, key: bytes) -> bytes | None:
        """The value, None when the map has none."""
        self._key.raw = key
        if self._syscall(self._number, _MAP_LOOKUP, self._attributes, 32) < 0:
            return None
        return self._value.raw


def allow_locked_memory() -> None:
    """Before 5.11 maps count as locked memory. Without the right to raise the limit, what it is must do."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def netns_cookie() -> int:
    """What programs know the network namespace of this thread by. Raises OSError before Linux 5.14."""
    with socket.socket(socket.AF_INET) as probe:
        try:
            return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError as error:
            raise OSError(error.errno, "the kernel is older than 5.14") from None
