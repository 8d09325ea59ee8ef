"""Just enough of bpf(2): an assembler, maps, programs and links. No compiler, nothing on the target.

Knows nothing of what the programs are for. Numbers are those of linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_LOOKUP, _PROG_LOAD, _LINK_CREATE = 0, 1, 5, 28
_LRU_HASH = 9
_LOG_SIZE = 65536
_PSEUDO_MAP_FD = 1


class Register(IntEnum):
    """R0 holds results, R1 to R5 arguments (lost by a call), R6 to R9 stay, R10 is the stack's end."""

    R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)


class Width(IntEnum):
    """The size bits of a load or store."""

    W = 0x00  # 4 bytes
    DW = 0x18  # 8 bytes


class Helper(IntEnum):
    """Functions of the kernel that a program may call."""

    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    MAP_DELETE = 3
    PID_TGID = 14
    UID_GID = 15
    COMM = 16
    SOCKET_COOKIE = 46
    CGROUP_ID = 80
    NETNS_COOKIE = 122
    BOOT_NS = 125


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; `target` is a label that `offset` is to reach."""

    code: int
    to: int = 0
    source: int = 0
    offset: int = 0
    immediate: int = 0
    target: str = ""
    wide: bool = False  # of two slots


@dataclass(frozen=True, slots=True)
class Label:
    """A place to jump to."""

    name: str


def copy(to: Register, source: Register) -> Instruction:
    """to = source."""
    return Instruction(0xBF, to, source)


def put(to: Register, value: int) -> Instruction:
    """to = value."""
    return Instruction(0xB7, to, immediate=value)


def add(to: Register, value: int) -> Instruction:
    """to += value."""
    return Instruction(0x07, to, immediate=value)


def load(width: Width, to: Register, base: Register, offset: int) -> Instruction:
    """to = *(base + offset)."""
    return Instruction(0x61 | width, to, base, offset)


def store(width: Width, base: Register, offset: int, source: Register) -> Instruction:
    """*(base + offset) = source."""
    return Instruction(0x63 | width, base, source, offset)


def store_value(width: Width, base: Register, offset: int, value: int) -> Instruction:
    """*(base + offset) = value."""
    return Instruction(0x62 | width, base, 0, offset, value)


def jump_if(register: Register, value: int, target: str) -> Instruction:
    """Jumps where register == value."""
    return Instruction(0x15, register, immediate=value, target=target)


def jump_unless(register: Register, value: int, target: str) -> Instruction:
    """Jumps where register != value."""
    return Instruction(0x55, register, immediate=value, target=target)


def jump(target: str) -> Instruction:
    """Jumps."""
    return Instruction(0x05, target=target)


def call(helper: Helper) -> Instruction:
    """R0 = helper(R1, ...)."""
    return Instruction(0x85, immediate=helper)


def leave() -> Instruction:
    """Returns R0."""
    return Instruction(0x95)


def load_map(to: Register, descriptor: int) -> Instruction:
    """to = the map with this file descriptor."""
    return Instruction(0x18, to, _PSEUDO_MAP_FD, immediate=descriptor, wide=True)


def assemble(lines: Iterable[Instruction | Label]) -> bytes:
    """The program's bytes. Raises KeyError for a label that is nowhere."""
    places: dict[str, int] = {}
    instructions: list[tuple[int, Instruction]] = []
    slot = 0
    for line in lines:
        if isinstance(line, Label):
            places[line.name] = slot
            continue
        instructions.append((slot, line))
        slot += 1 + line.wide
    out = []
    for at, one in instructions:
        offset = places[one.target] - at - 1 if one.target else one.offset
        registers = one.to | one.source << 4
        out.append(struct.pack("=BBhi", one.code, registers, offset, one.immediate))
        out.append(bytes(8) if one.wide else b"")
    return b"".join(out)


class Bpf:
    """The system call. Raises OSError, with the verifier's last words where it has any."""

    def __init__(self) -> None:
        self._number = _SYSCALL.get(platform.machine())
        if self._number is None:
            raise OSError(errno.ENOSYS, f"bpf(2) has no known number on {platform.machine()}")
        self._library = ctypes.CDLL(None, use_errno=True)

    def lru_map(self, key_size: int, value_size: int, entries: int) -> int:
        """A bounded map that forgets what was used least recently: its file descriptor."""
        return self._call(
            _MAP_CREATE, struct.pack("=IIIII", _LRU_HASH, key_size, value_size, entries, 0), "map"
        )

    def program(self, kind: int, attach_type: int, code: bytes) -> int:
        """A loaded program's file descriptor."""
        instructions = ctypes.create_string_buffer(code, len(code))
        licence = ctypes.create_string_buffer(b"Apache-2.0")
        log = ctypes.create_string_buffer(_LOG_SIZE)
        attributes = struct.pack(
            "=IIQQIIQII16sII",
            *(kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)),
            *(1, _LOG_SIZE, ctypes.addressof(log), 0, 0, b"imds_proxy", 0, attach_type),
        )
        try:
            return self._call(_PROG_LOAD, attributes, "program")
        except OSError as error:
            said = log.value.decode("ascii", "replace").strip().splitlines()
            words = next((line for line in reversed(said) if not line.startswith("processed ")), "")
            raise OSError(error.errno, f"{error.strerror}{f': {words}' if words else ''}") from None

    def link(self, program: int, cgroup: int, attach_type: int) -> int:
        """Attaches to a cgroup; the kernel detaches when the last holder of this descriptor is gone."""
        return self._call(_LINK_CREATE, struct.pack("=IIII", program, cgroup, attach_type, 0), "link")

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
