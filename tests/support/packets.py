"""IP packets with TCP segments in them, as they are on the wire."""

from __future__ import annotations

import socket
import struct

from imds_proxy.protocol.items import ItemClassifier
from imds_proxy.protocol.profile import PROFILES
from imds_proxy.protocol.request import HeadRules

RULES = HeadRules(PROFILES["alibaba"], ItemClassifier(PROFILES["alibaba"]), 16384, 2048)
MAC = b"GET /latest/meta-data/mac HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n"
HOSTNAME = MAC.replace(b"/mac", b"/hostname")
TTL = b"X-aliyun-ecs-metadata-token-ttl-seconds: 60\r\n"
PUT = b"PUT /latest/api/token HTTP/1.1\r\nHost: 100.100.100.200\r\n" + TTL  # to be ended

CLIENT, SERVICE = "192.0.2.7", "100.100.100.200"
CLIENT6, SERVICE6 = "2001:db8::7", "fd00:100::100:200"
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def tcp(source_port: int, target_port: int, sequence: int, flags: int, payload: bytes) -> bytes:
    head = struct.pack("!HHIIBBHHH", source_port, target_port, sequence, 0, 8 << 4, flags, 1024, 0, 0)
    return head + bytes(12) + payload  # with options


def packet(
    source: tuple[str, int],
    target: tuple[str, int],
    payload: bytes = b"",
    sequence: int = 0,
    flags: int = ACK,
    protocol: int = 6,
    fragment: int = 0,
) -> bytes:
    """A packet without its link header; IPv4 has options, so that TCP does not begin at byte 20."""
    inner = tcp(source[1], target[1], sequence, flags, payload)
    if ":" in source[0]:
        addresses = b"".join(socket.inet_pton(socket.AF_INET6, one[0]) for one in (source, target))
        return struct.pack("!IHBB", 6 << 28, len(inner), protocol, 64) + addresses + inner
    addresses = b"".join(socket.inet_aton(one[0]) for one in (source, target))
    length = 24 + len(inner)
    return (
        struct.pack("!BBHHHBBH", 0x46, 0, length, 0, fragment, 64, protocol, 0) + addresses + bytes(4) + inner
    )


def answer(status: int, body: bytes = b"x") -> bytes:
    """What the service says."""
    return f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
