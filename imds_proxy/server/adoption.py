"""Which sockets the daemon listens at: those that an earlier run or a socket unit left, new ones beside.

Who serves them is no matter of its.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from imds_proxy.config import Address
from imds_proxy.server.fdstore import DescriptorStore
from imds_proxy.server.listener import bind, limit_hops

KEPT = "listener-"
"""Begins the names by which they are stored."""


class CannotListen(Exception):
    """An address cannot be listened at; the message is a sentence for the user."""


def listening_sockets(
    addresses: Sequence[Address], hop_limit: int, store: DescriptorStore
) -> list[socket.socket]:
    """Sockets that listen at `addresses`, in that order, then those of socket units at other addresses.

    `hop_limit` is the TTL of what they answer. New ones are stored, so that connections wait in them while
    the daemon is away; what was stored for an address that is no longer wanted is dropped. Raises
    CannotListen.
    """
    activated = _activated(store)
    sockets = []
    for address in addresses:
        wire = activated.pop(address, None)  # its unit holds it already
        if wire is None:
            name = _name(address)
            wire = _left(store, name, address) or _bound(address, hop_limit)
            if address.port:  # another run would take any other
                store.keep(name, [wire.fileno()])
        sockets.append(wire)
    sockets += activated.values()
    for name in store.left(KEPT):
        store.drop(name)
    for wire in sockets:
        limit_hops(wire, hop_limit)
    return sockets


def redirected_sockets(
    addresses: Sequence[Address], hop_limit: int, store: DescriptorStore
) -> dict[Address, socket.socket | OSError]:
    """The sockets at which redirected calls arrive, adopted or new, each stored; or why there is none.

    They are bound while that is allowed, before their addresses are on `lo`. To be called before
    `listening_sockets`, which drops what nobody wants.
    """
    found: dict[Address, socket.socket | OSError] = {}
    for descriptor in list(store.activated):
        wire = _listening(descriptor)
        if wire is not None and _address_of(wire) in addresses:
            store.activated.remove(descriptor)
            found[_address_of(wire)] = wire
        elif wire is not None:
            wire.detach()
    for address in addresses:
        if address in found:
            continue
        try:
            wire = _left(store, _name(address), address) or bind(address, hop_limit, anywhere=True)
        except OSError as error:
            found[address] = error
        else:
            limit_hops(wire, hop_limit)
            store.keep(_name(address), [wire.fileno()])
            found[address] = wire
    return found


def release(sockets: Sequence[socket.socket], store: DescriptorStore) -> None:
    """Nobody holds the sockets but this process, once this is said: with it they stop to listen."""
    for wire in sockets:
        store.drop(_name(_address_of(wire)))


def _activated(store: DescriptorStore) -> dict[Address, socket.socket]:
    sockets = {}
    while store.activated:
        descriptor = store.activated.pop(0)
        wire = _listening(descriptor)
        if wire is None:
            os.close(descriptor)
            raise CannotListen(
                f"descriptor {descriptor} of a socket unit is no listening TCP socket; only such are allowed "
                "(ListenStream= with an IP address)"
            )
        sockets[_address_of(wire)] = wire
    return sockets


def _left(store: DescriptorStore, name: str, address: Address) -> socket.socket | None:
    """The socket that an earlier run left for that address."""
    found = None
    for descriptor in store.take(name):
        wire = _listening(descriptor)
        if found is None and wire is not None and _address_of(wire) == address:
            found = wire
        elif wire is not None:
            wire.close()
        else:
            os.close(descriptor)
    if found is None:
        store.drop(name)
    return found


def _listening(descriptor: int) -> socket.socket | None:
    try:
        wire = socket.socket(fileno=descriptor)
    except OSError:
        return None
    inet = wire.family in (socket.AF_INET, socket.AF_INET6) and wire.type == socket.SOCK_STREAM
    if inet and wire.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        wire.setblocking(False)
        return wire
    wire.detach()
    return None


def _bound(address: Address, hop_limit: int) -> socket.socket:
    try:
        return bind(address, hop_limit)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {_reason(error)}") from None


def _address_of(wire: socket.socket) -> Address:
    host, port = wire.getsockname()[:2]
    return Address(host, port)


def _name(address: Address) -> str:
    return KEPT + str(address).replace(":", "_")


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    if error.errno == errno.EACCES:
        return "a port below 1024 needs root or CAP_NET_BIND_SERVICE"
    return error.strerror or str(error)
