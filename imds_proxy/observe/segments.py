"""One packet as the TCP segment in it. Pure; whatever is cut or no TCP is None."""

from __future__ import annotations

from dataclasses import dataclass, field

_TCP = 6
_FIN, _SYN, _RST = 0x01, 0x02, 0x04
_IPV6_HEADER = 40  # bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """`source` and `target` are packed addresses with ports; `sequence` is that of the first byte."""

    source: tuple[bytes, int]
    target: tuple[bytes, int]
    sequence: int
    syn: bool
    fin: bool
    reset: bool
    payload: bytes = field(repr=False)  # may hold a token


def read_segment(packet: bytes) -> Segment | None:
    """The segment of a packet that begins with its IP header."""
    if len(packet) < 20:
        return None
    version = packet[0] >> 4
    if version == 4:
        start = 4 * (packet[0] & 0x0F)
        end = int.from_bytes(packet[2:4], "big") or len(packet)  # 0: larger than 64 KiB, by the sender's card
        protocol, addresses = packet[9], (packet[12:16], packet[16:20])
        if start < 20 or int.from_bytes(packet[6:8], "big") & 0x3FFF:  # a fragment
            return None
    elif version == 6:
        start, protocol = _IPV6_HEADER, packet[6]
        length = int.from_bytes(packet[4:6], "big")
        end = start + length if length else len(packet)
        addresses = (packet[8:24], packet[24:40])
    else:
        return None
    header = packet[start:]
    if protocol != _TCP or len(header) < 20 or end > len(packet):
        return None
    data = start + 4 * (header[12] >> 4)
    flags = header[13]
    if data < start + 20 or data > end:
        return None
    return Segment(
        source=(addresses[0], int.from_bytes(header[0:2], "big")),
        target=(addresses[1], int.from_bytes(header[2:4], "big")),
        sequence=int.from_bytes(header[4:8], "big"),
        syn=bool(flags & _SYN),
        fin=bool(flags & _FIN),
        reset=bool(flags & _RST),
        payload=packet[data:end],
    )
