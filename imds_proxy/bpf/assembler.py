"""An assembler of eBPF instructions. Pure; knows nothing of what programs are for.

Numbers are those of linux/bpf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

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
    MONOTONIC_NS = 5
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
    upper: int = 0  # what the second of these holds


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


def put_long(to: Register, value: int) -> Instruction:
    """to = value, of 64 bits without a sign."""
    lower = value & 0xFFFFFFFF
    return Instruction(0x18, to, immediate=_signed(lower), wide=True, upper=_signed(value >> 32))


def cut(to: Register) -> Instruction:
    """to &= 0xffffffff."""
    return Instruction(0xBC, to, to)


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


def jump_if_word(register: Register, value: int, target: str) -> Instruction:
    """Jumps where the lower 32 bits are this value, which has no sign."""
    return Instruction(0x16, register, immediate=_signed(value), target=target)


def jump_unless_word(register: Register, value: int, target: str) -> Instruction:
    """Jumps where the lower 32 bits are not this value, which has no sign."""
    return Instruction(0x56, register, immediate=_signed(value), target=target)


def jump_unless_equal(register: Register, other: Register, target: str) -> Instruction:
    """Jumps where register != other."""
    return Instruction(0x5D, register, other, target=target)


def jump_if_above(register: Register, other: Register, target: str) -> Instruction:
    """Jumps where register > other, both without a sign."""
    return Instruction(0x2D, register, other, target=target)


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
        out.append(struct.pack("=BBhi", 0, 0, 0, one.upper) if one.wide else b"")
    return b"".join(out)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
