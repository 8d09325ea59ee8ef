"""The kernel's filter for packets of the metadata service, as classic BPF. Pure: instructions out.

Only TCP packets to or from one address and port reach the program; all others cost it nothing.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

_INSTRUCTION = struct.Struct("=HBBI")  # linux/filter.h: code, jump if true, jump if false, constant
# Of linux/bpf_common.h: class, size and mode of each instruction that is used.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30  # A = packet[k]
_LOAD_HALF_AT_X = 0x48  # A = packet[x + k]
_HEADER_LENGTH = 0xB1  # X = 4 * (packet[k] & 0xF): where TCP begins in IPv4
_EQUALS, _ANY_BIT, _AND, _RETURN = 0x15, 0x45, 0x54, 0x06
_WHOLE, _NOTHING = 0xFFFF, 0
_TCP = 6

_Step = tuple[int, str | None, str | None, int] | str
"""Code, labels to go to if true and if false (None: the next), constant; or a label."""


def packet_filter(addresses: Sequence[str], port: int) -> bytes:
    """The program for packets that begin with their IP header (a SOCK_DGRAM packet socket)."""
    steps: list[_Step] = []
    for number, text in enumerate(addresses):
        address = ipaddress.ip_address(text)
        six = address.version == 6
        steps += _of_one(f"{number}.", address.packed, port, six)
    steps += [(_RETURN, None, None, _NOTHING), "take", (_RETURN, None, None, _WHOLE)]
    return _assembled(steps)


def _of_one(prefix: str, packed: bytes, port: int, six: bool) -> list[_Step]:
    out = f"{prefix}next"
    protocol_at, source_at, target_at = (6, 8, 24) if six else (9, 12, 16)
    steps: list[_Step] = [
        (_LOAD_BYTE, None, None, 0),
        (_AND, None, None, 0xF0),
        (_EQUALS, None, out, 0x60 if six else 0x40),  # the version
        (_LOAD_BYTE, None, None, protocol_at),
        (_EQUALS, None, out, _TCP),
    ]
    if six:
        source_port, target_port = (_LOAD_HALF, 40), (_LOAD_HALF, 42)  # no extension headers
    else:
        steps += [
            (_LOAD_HALF, None, None, 6),
            (_ANY_BIT, out, None, 0x1FFF),  # a later fragment has no ports
            (_HEADER_LENGTH, None, None, 0),
        ]
        source_port, target_port = (_LOAD_HALF_AT_X, 0), (_LOAD_HALF_AT_X, 2)
    other = f"{prefix}source"
    for at, (load, offset), miss, label in (
        (target_at, target_port, other, None),
        (source_at, source_port, out, other),
    ):
        if label is not None:
            steps.append(label)
        for part in range(0, len(packed), 4):
            steps.append((_LOAD_WORD, None, None, at + part))
            steps.append((_EQUALS, None, miss, int.from_bytes(packed[part : part + 4], "big")))
        steps += [(load, None, None, offset), (_EQUALS, "take", miss, port)]
    return [*steps, out]


def _assembled(steps: Sequence[_Step]) -> bytes:
    places: dict[str, int] = {}
    code: list[tuple[int, str | None, str | None, int]] = []
    for step in steps:
        if isinstance(step, str):
            places[step] = len(code)
        else:
            code.append(step)
    out = []
    for at, (operation, true, false, constant) in enumerate(code):
        jumps = [0 if label is None else places[label] - at - 1 for label in (true, false)]
        out.append(_INSTRUCTION.pack(operation, *jumps, constant))
    return b"".join(out)
