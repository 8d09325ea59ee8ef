"""The modules that a Go executable was built of, from the build info that the linker leaves in it.

Reads a few bounded pieces of an ELF file; nothing is executed. Both forms are known: strings in place (since
Go 1.18) and pointers to them. Knows no particular module.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from imds_proxy.clients.rooted import Budget, read_at

_MAGIC = b"\xff Go buildinf:"
_ALIGN, _HEADER = 16, 32
_SEARCH = 8 << 20  # bytes of a segment that are searched
_MAX_INFO = 1 << 20
_FRAME = 16  # bytes around the text
_MAX_HEADERS = 256
_LOAD, _WRITABLE = 1, 2


@dataclass(frozen=True, slots=True)
class Module:
    """A module's path and version; `version` is None where the linker wrote none, or another module (a
    fork, a directory) stands in its place."""

    path: str
    version: str | None
    main: bool = False


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    flags: int
    offset: int
    address: int
    size: int


def modules(descriptor: int, budget: Budget) -> tuple[Module, ...]:
    """Those of an open file, the main one first; empty for what is no Go executable, or built without
    modules. Raises Exhausted."""

    def read(offset: int, size: int) -> bytes:
        return read_at(descriptor, offset, size, budget) or b""

    try:
        info = _build_info(read)
    except (struct.error, IndexError, OverflowError):
        return ()
    return tuple(parse_modules(info)) if info else ()


def parse_modules(text: str) -> Iterator[Module]:
    """The modules of a build info's text."""
    held: Module | None = None
    for line in text.split("\n"):
        fields = line.split("\t")
        if fields[0] == "=>" and held is not None:
            same = len(fields) > 1 and fields[1] == held.path
            version = _version(fields[2]) if same and len(fields) > 2 else None
            held = Module(held.path, version, held.main)
            continue
        if held is not None:
            yield held
            held = None
        if fields[0] in ("mod", "dep") and len(fields) > 1:
            held = Module(fields[1], _version(fields[2]) if len(fields) > 2 else None, fields[0] == "mod")
    if held is not None:
        yield held


def _version(text: str) -> str | None:
    return text if text and not text.startswith("(") else None


def _build_info(read: Callable[[int, int], bytes]) -> str | None:
    head = read(0, 64)
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    segments = _segments(head, read, wide=wide, order=order)
    for segment in sorted(segments, key=lambda one: not one.flags & _WRITABLE):
        if segment.kind != _LOAD:
            continue
        at = _find(read, segment)
        if at is not None:
            return _text_at(read, at, segments, order)
    return None


def _segments(head: bytes, read: Callable[[int, int], bytes], *, wide: bool, order: str) -> list[_Segment]:
    if wide:
        (offset,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
    else:
        (offset,) = struct.unpack_from(f"{order}I", head, 28)
        size, count = struct.unpack_from(f"{order}HH", head, 42)
    found = []
    for number in range(min(count, _MAX_HEADERS)):
        raw = read(offset + number * size, size)
        if wide:
            kind, flags, start, address, _, length = struct.unpack_from(f"{order}IIQQQQ", raw)
        else:
            kind, start, address, _, length, _, flags = struct.unpack_from(f"{order}IIIIIII", raw)
        found.append(_Segment(kind, flags, start, address, length))
    return found


def _find(read: Callable[[int, int], bytes], segment: _Segment) -> int | None:
    """Where the blob begins in the file, if this segment holds it."""
    data = read(segment.offset, min(segment.size, _SEARCH))
    at = data.find(_MAGIC)
    while at >= 0:
        if at % _ALIGN == 0 and at + _HEADER <= len(data):
            return segment.offset + at
        at = data.find(_MAGIC, at + 1)
    return None


def _text_at(read: Callable[[int, int], bytes], at: int, segments: list[_Segment], order: str) -> str | None:
    header = read(at, _HEADER)
    width, flags = header[14], header[15]
    if flags & 2:  # the strings follow, each with its length
        _, after = _string_in_place(read, at + _HEADER)
        raw, _ = _string_in_place(read, after)
    else:
        if width not in (4, 8):
            return None
        order = ">" if flags & 1 else "<"
        (pointer,) = struct.unpack_from(f"{order}{'Q' if width == 8 else 'I'}", header, 16 + width)
        raw = _string_by_pointer(read, pointer, segments, f"{order}{'QQ' if width == 8 else 'II'}")
    if len(raw) < 2 * _FRAME + 1 or raw[-_FRAME - 1 : -_FRAME] != b"\n":
        return None
    return raw[_FRAME:-_FRAME].decode("utf-8", "replace")


def _string_in_place(read: Callable[[int, int], bytes], at: int) -> tuple[bytes, int]:
    """A string after its length (a varint), and where it ends."""
    head = read(at, 10)
    length = shift = 0
    for number, byte in enumerate(head):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if length > _MAX_INFO:
                raise IndexError("too long")
            start = at + number + 1
            return read(start, length), start + length
    raise IndexError("no length")


def _string_by_pointer(
    read: Callable[[int, int], bytes], pointer: int, segments: list[_Segment], form: str
) -> bytes:
    """The Go string whose header (pointer and length) stands at an address."""
    header = _at_address(read, pointer, struct.calcsize(form), segments)
    address, length = struct.unpack(form, header)
    if length > _MAX_INFO:
        raise IndexError("too long")
    return _at_address(read, address, length, segments)


def _at_address(
    read: Callable[[int, int], bytes], address: int, size: int, segments: list[_Segment]
) -> bytes:
    for one in segments:
        if one.address <= address and address + size <= one.address + one.size:
            return read(one.offset + address - one.address, size)
    raise IndexError("no such address")
