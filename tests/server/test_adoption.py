from __future__ import annotations

import errno
import os
import socket

import pytest

from imds_proxy.config import Address
from imds_proxy.server.adoption import CannotListen, listening_sockets, redirected_sockets, release
from imds_proxy.server.fdstore import DescriptorStore
from imds_proxy.server.notify import Notifier
from manager import Manager
from netns import ip, own_network


def free_port() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as wire:
        return Address("127.0.0.1", wire.getsockname()[1])


def passed_on(manager: Manager) -> list[tuple[str, int]]:
    """What a new start of the service inherits."""
    manager.heard()
    return [(name, os.dup(one)) for name, held in manager.held.items() for one in held]


def closed(sockets: list[socket.socket]) -> None:
    for wire in sockets:
        wire.close()


def test_connections_made_while_no_daemon_runs_wait_for_the_next(
    manager: Manager, notifier: Notifier
) -> None:
    address = free_port()
    closed(listening_sockets([address], 1, DescriptorStore(notifier, [])))  # it bound, kept, and died
    inherited = passed_on(manager)
    with socket.create_connection((address.host, address.port), 1) as caller:
        (wire,) = listening_sockets([address], 1, DescriptorStore(notifier, inherited))
        accepted, _ = wire.accept()
        accepted.sendall(b"x")
        assert caller.recv(1) == b"x"
        accepted.close()
        wire.close()


def test_a_socket_for_an_address_that_is_no_longer_wanted_stops_to_listen(
    manager: Manager, notifier: Notifier
) -> None:
    old, new = free_port(), free_port()
    closed(listening_sockets([old], 1, DescriptorStore(notifier, [])))
    sockets = listening_sockets([new], 1, DescriptorStore(notifier, passed_on(manager)))
    manager.heard()
    assert list(manager.held) == [f"kept-listener-127.0.0.1_{new.port}"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((old.host, old.port), 1)
    closed(sockets)


def test_what_is_released_stops_to_listen_with_the_process(manager: Manager, notifier: Notifier) -> None:
    address = free_port()
    store = DescriptorStore(notifier, [])
    sockets = listening_sockets([address], 1, store)
    release(sockets, store)
    manager.heard()
    assert manager.held == {}
    closed(sockets)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port), 1)


def test_a_stored_descriptor_that_is_something_else_by_now_is_replaced(
    manager: Manager, notifier: Notifier
) -> None:
    address = free_port()
    name = f"kept-listener-127.0.0.1_{address.port}"
    read, write = os.pipe()
    other = socket.create_server(("127.0.0.1", 0))
    store = DescriptorStore(notifier, [(name, read), (name, os.dup(other.fileno()))])
    (wire,) = listening_sockets([address], 1, store)
    assert wire.getsockname() == (address.host, address.port)
    with pytest.raises(BrokenPipeError):
        os.write(write, b"x")
    os.close(write)
    closed([wire, other])


def test_a_socket_units_socket_serves_its_address_and_others_are_bound(
    manager: Manager, notifier: Notifier
) -> None:
    unit, beside = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    of_unit, own = Address(*unit.getsockname()[:2]), free_port()
    passed = [("imds-proxy.socket", os.dup(unit.fileno())), ("imds-proxy.socket", os.dup(beside.fileno()))]
    sockets = listening_sockets([own, of_unit], 1, DescriptorStore(notifier, passed))
    ports = [wire.getsockname()[1] for wire in sockets]
    assert ports == [own.port, of_unit.port, beside.getsockname()[1]]
    manager.heard()
    assert list(manager.held) == [f"kept-listener-127.0.0.1_{own.port}"]  # its unit keeps the others
    closed([*sockets, unit, beside])


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_socket_unit_that_does_not_listen_for_tcp_is_refused(notifier: Notifier, kind: int) -> None:
    wire = socket.socket(socket.AF_INET, kind)
    store = DescriptorStore(notifier, [("imds-proxy.socket", wire.detach())])
    with pytest.raises(CannotListen, match=r"no listening TCP socket.*ListenStream="):
        listening_sockets([], 1, store)


def test_a_busy_port_and_a_foreign_address_are_said_each_in_a_sentence(notifier: Notifier) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(*taken.getsockname()[:2])
        with pytest.raises(CannotListen, match=f"cannot listen on {address}: Address already in use"):
            listening_sockets([address], 1, DescriptorStore(notifier, []))
    with pytest.raises(CannotListen, match="this machine does not have that address"):
        listening_sockets([Address("192.0.2.1", 80)], 1, DescriptorStore(notifier, []))


def test_answers_have_the_hop_limit_on_both_families(notifier: Notifier) -> None:
    addresses = [Address("127.0.0.1", 0), Address("::1", 0)]
    four, six = listening_sockets(addresses, 3, DescriptorStore(notifier, []))
    assert four.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 3
    assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 3
    closed([four, six])


def test_a_socket_on_any_port_is_not_kept(manager: Manager, notifier: Notifier) -> None:
    closed(listening_sockets([Address("127.0.0.1", 0)], 1, DescriptorStore(notifier, [])))
    manager.heard()
    assert manager.held == {}


def test_redirected_calls_have_their_socket_before_the_address_is_there_and_over_runs(
    manager: Manager, notifier: Notifier
) -> None:
    address = Address("169.254.100.200", 200)
    with own_network():
        found = redirected_sockets([address], 1, DescriptorStore(notifier, []))
        first = found[address]
        assert isinstance(first, socket.socket)
        inode = os.fstat(first.fileno()).st_ino
        ip("addr add 169.254.100.200/32 dev lo")
        with socket.create_connection((address.host, address.port), 1):
            first.close()  # that run has died; the connection waits
            store = DescriptorStore(notifier, passed_on(manager))
            second = redirected_sockets([address], 1, store)[address]
            assert isinstance(second, socket.socket)
            assert os.fstat(second.fileno()).st_ino == inode
            assert listening_sockets([], 1, store) == []  # and it is not dropped with what nobody wants
            second.accept()[0].close()
            second.close()


def test_a_socket_unit_may_have_bound_what_takes_redirected_calls(notifier: Notifier) -> None:
    with own_network(), socket.create_server(("127.0.0.1", 0)) as unit:
        address = Address("127.0.0.1", unit.getsockname()[1])
        other = socket.create_server(("127.0.0.1", 0))
        store = DescriptorStore(notifier, [("a", os.dup(unit.fileno())), ("b", os.dup(other.fileno()))])
        wire = redirected_sockets([address], 1, store)[address]
        assert isinstance(wire, socket.socket)
        assert wire.getsockname() == unit.getsockname()
        (left,) = listening_sockets([], 1, store)
        assert left.getsockname() == other.getsockname()
        closed([wire, left, other])


def test_why_there_is_no_socket_for_redirected_calls_is_kept_until_it_is_asked_for(
    notifier: Notifier,
) -> None:
    with own_network(), socket.create_server(("0.0.0.0", 200)):
        address = Address("169.254.100.200", 200)
        found = redirected_sockets([address], 1, DescriptorStore(notifier, []))[address]
        assert isinstance(found, OSError)
        assert found.errno == errno.EADDRINUSE
