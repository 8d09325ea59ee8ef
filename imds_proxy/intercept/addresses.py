"""The listener's own address: a /32 (or /128) on `lo`, over rtnetlink.

Given for a time, and renewed, unless it is to stay: so a daemon that was killed leaves none for long. Ours
are told from an operator's by the flag `noprefixroute`, which has no effect there.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from imds_proxy.config_values import Address
from imds_proxy.intercept.netlink import ACK, DUMP, REQUEST, answers, netlink
from imds_proxy.intercept.redirect import InterceptError

# linux/rtnetlink.h, linux/if_addr.h, linux/netlink.h
_NEW, _DELETE, _GET = 20, 21, 22
_REPLACE, _CREATE = 0x100, 0x400
_ADDRESS, _LOCAL, _CACHE_INFO, _FLAGS = 1, 2, 6, 8
_NO_DAD, _NO_PREFIX_ROUTE = 0x02, 0x200
_HOST_SCOPE = 254  # never chosen as the source of what leaves the machine
_FOREVER = 0xFFFFFFFF
_NO_IPV6 = (errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)

_MESSAGE = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, interface
_ATTRIBUTE = struct.Struct("=HH")
_LIFETIME = struct.Struct("=IIII")  # preferred, valid, created, changed


@dataclass(frozen=True, slots=True)
class Holder:
    """Which interface has an address, and whether we gave it to it."""

    interface: str
    ours: bool


def holder(host: str) -> Holder | None:
    """The interface that has the address now. Raises OSError."""
    packed = ipaddress.ip_address(host).packed
    with netlink(socket.NETLINK_ROUTE) as wire:
        message = _MESSAGE.pack(_family(packed), 0, 0, 0, 0)
        for kind, body in answers(wire, _GET, REQUEST | DUMP, message):
            if kind != _NEW:
                continue
            index, attributes = _MESSAGE.unpack_from(body)[4], dict(_parsed(body[_MESSAGE.size :]))
            if attributes.get(_LOCAL, attributes.get(_ADDRESS)) == packed:
                flags = int.from_bytes(attributes.get(_FLAGS, b""), sys.byteorder)
                interface = _name(index)
                return Holder(interface, interface == "lo" and bool(flags & _NO_PREFIX_ROUTE))
    return None


def hold(host: str, seconds: int | None) -> None:
    """Gives `lo` the address for so long (None: until it is dropped), or for so much longer.

    Raises InterceptError, and OSError of the kernel; EACCES or EOPNOTSUPP: there is no IPv6 here.
    """
    found = holder(host)
    if found is not None and not found.ours:
        if found.interface == "lo":
            return  # an operator gave it, and keeps it
        raise InterceptError(
            "address-in-use",
            f"{host} is already an address of {found.interface}",
            "set intercept.address to one that is free",
        )
    until = seconds if seconds is not None else _FOREVER
    attributes = _attribute(_CACHE_INFO, _LIFETIME.pack(until, until, 0, 0))
    attributes += _attribute(_FLAGS, struct.pack("=I", _NO_DAD | _NO_PREFIX_ROUTE))
    try:
        _change(_NEW, host, attributes, _REPLACE | _CREATE)
    except PermissionError:
        if found is None:  # else it is there, and may be all that is needed
            raise


def hold_all(addresses: Sequence[Address], seconds: int | None) -> list[Address]:
    """Those of the listeners' addresses that `lo` has now: all, but for IPv6 where it is off.

    Raises InterceptError: then none is left that was not there before.
    """
    held: list[Address] = []
    try:
        for address in addresses:
            try:
                hold(address.host, seconds)
            except OSError as error:
                if ":" not in address.host or error.errno not in _NO_IPV6:
                    raise
            else:
                held.append(address)
    except (InterceptError, OSError) as error:
        drop_all(held)
        if isinstance(error, InterceptError):
            raise
        if error.errno == errno.EPERM:
            needs = "it needs CAP_NET_ADMIN in its network namespace"
            raise InterceptError("no-capability", "lo cannot be given an address", needs) from None
        raise InterceptError("no-address", f"lo takes no address: {error.strerror}") from None
    return held


def drop_all(addresses: Sequence[Address]) -> None:
    """Takes from `lo` those that are ours."""
    for address in addresses:
        with suppress(OSError):
            drop(address.host)


def drop(host: str) -> bool:
    """Takes the address from `lo` if it is ours; whether it was. Raises OSError."""
    found = holder(host)
    if found is None or not found.ours:
        return False
    _change(_DELETE, host, b"", 0)
    return True


def _change(kind: int, host: str, attributes: bytes, flags: int) -> None:
    packed = ipaddress.ip_address(host).packed
    message = _MESSAGE.pack(_family(packed), len(packed) * 8, 0, _HOST_SCOPE, socket.if_nametoindex("lo"))
    message += _attribute(_LOCAL, packed) + _attribute(_ADDRESS, packed) + attributes
    with netlink(socket.NETLINK_ROUTE) as wire:
        for _ in answers(wire, kind, REQUEST | ACK | flags, message):
            pass


def _parsed(raw: bytes) -> Iterator[tuple[int, bytes]]:
    while len(raw) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(raw)
        if length < _ATTRIBUTE.size:
            return
        yield kind, raw[_ATTRIBUTE.size : length]
        raw = raw[(length + 3) & ~3 :]


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def _family(packed: bytes) -> int:
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"interface {index}"
