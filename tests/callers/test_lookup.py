"""What the kernel says of a connection that came from another network namespace."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.connects import note_connects
from imds_proxy.callers.lookup import ConnectionLookup
from imds_proxy.callers.podnet import PodNetworks
from imds_proxy.callers.resolver import Resolver
from imds_proxy.callers.sockdiag import SockDiag
from imds_proxy.callers.ticket import Ticket
from imds_proxy.policy.caller import Pod as NamedPod
from podlab import Node, Pod, node

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
UID = "12345678-1234-1234-1234-123456789abc"
CONTAINER = "0123456789abcdef" * 4


@pytest.fixture
def lab() -> Iterator[Node]:
    with node() as made:
        yield made


@pytest.fixture
def server(lab: Node) -> Iterator[socket.socket]:
    with lab.place.call(socket.create_server, (lab.address, 0), backlog=100) as listening:
        listening.settimeout(5)
        yield listening


@pytest.fixture
def lookup(lab: Node) -> Iterator[ConnectionLookup]:
    asking = lab.place.call(lambda: ConnectionLookup(SockDiag(), None, PodNetworks()))
    yield asking
    asking.close()


def connected(pod: Pod, server: socket.socket, port: int = 0) -> tuple[socket.socket, tuple[object, ...]]:
    pod.run(f"wire = socket.create_connection({server.getsockname()!r}, 5, ('', {port}))")
    return server.accept()


def asked(lookup: ConnectionLookup, pod: Pod, server: socket.socket, port: int = 0) -> Ticket:
    accepted, peer = connected(pod, server, port)
    with accepted:
        return lookup.located(lookup.look_up(accepted, peer))


def test_the_socket_is_found_in_the_pods_own_namespace(
    lab: Node, lookup: ConnectionLookup, server: socket.socket
) -> None:
    pod = lab.pod(2, user=4321)
    ticket = asked(lookup, pod, server)
    assert ticket.owner is not None
    assert ticket.elsewhere
    assert (ticket.owner.uid, ticket.why) == (4321, None)
    assert str(ticket.owner.inode) == pod.run("result = os.fstat(wire.fileno()).st_ino")


def test_just_after_a_look_the_answer_is_there_at_accept(
    lab: Node, lookup: ConnectionLookup, server: socket.socket
) -> None:
    pod = lab.pod(2)
    asked(lookup, pod, server)
    accepted, peer = connected(pod, server)
    with accepted:
        assert lookup.look_up(accepted, peer).owner is not None
        assert lookup.held(accepted, peer) is not None
        pod.end()
        assert lookup.held(accepted, peer) is None


def test_without_networks_a_pods_connection_is_nobodys(lab: Node, server: socket.socket) -> None:
    lookup = lab.place.call(ConnectionLookup, lab.place.call(SockDiag), None, None)
    ticket = asked(lookup, lab.pod(2), server)
    lookup.close()
    assert (ticket.owner, ticket.elsewhere) == (None, False)
    assert ticket.why == "no live socket on this machine has this connection"


def test_28_two_pods_with_one_source_port_are_told_apart(
    lab: Node, lookup: ConnectionLookup, server: socket.socket
) -> None:
    pods = [lab.pod(2, user=5002), lab.pod(3, user=5003)]
    found = [asked(lookup, pod, server, port=33333).owner for pod in pods]
    assert [owner and owner.uid for owner in found] == [5002, 5003]


def test_28_another_pods_address_gives_nothing_not_even_to_who_gets_its_packets(
    lab: Node, lookup: ConnectionLookup, server: socket.socket
) -> None:
    victim, thief = lab.pod(2, user=5002), lab.pod(3)
    assert asked(lookup, victim, server).owner is not None
    lab.spoof(thief, victim.address)
    victim.run("wire.close()")
    statement = f"wire = socket.create_connection({server.getsockname()!r}, 5, ({victim.address!r}, 0))"
    assert thief.run(statement) == "None"
    accepted, peer = server.accept()
    with accepted:
        assert peer[0] == victim.address
        ticket = lookup.located(lookup.look_up(accepted, peer))
    assert ticket.owner is None
    assert ticket.why in (
        "no live socket on this machine has this connection",
        "no network namespace of this machine alone has that address",
    )


class Directory:
    """Knows one pod."""

    def __init__(self, addresses: set[bytes]) -> None:
        self.addresses = addresses

    def of(self, uid: str) -> NamedPod | None:
        return NamedPod("web", "web-1", "default") if uid == UID else None

    def may_have(self, uid: str, address: bytes) -> bool:
        return uid != UID or address in self.addresses

    def container(self, uid: str, container: str) -> tuple[str, str] | None:
        return ("app", "registry/app:1") if (uid, container) == (UID, CONTAINER) else None


@pytest.mark.skipif(CgroupTree.find().mount is None, reason="no cgroup v2 hierarchy is mounted")
@pytest.mark.parametrize("noted", [False, True], ids=["procfs", "ebpf"])
def test_a_pods_process_is_named_whole_and_again_with_its_container_and_pod(
    lab: Node, server: socket.socket, noted: bool
) -> None:
    pod = lab.kubernetes_pod(2, UID, CONTAINER, user=4321)
    directory = Directory({socket.inet_aton(pod.address)})
    notes = lab.place.call(note_connects, CgroupTree.find().mount) if noted else None
    networks = lab.place.call(PodNetworks)
    resolver = lab.place.call(lambda: Resolver(notes=notes, networks=networks, pods=directory))
    try:
        accepted, peer = connected(pod, server)
        with accepted:
            ticket = resolver.look_up(accepted, peer)
            assert resolver.resolve(ticket) is None
            caller = resolver.scan(ticket, resolver.capture(ticket))
        assert caller.process is not None
        assert (caller.process.pid, caller.identity.uid, caller.script) == (pod.pid, 4321, "-c")
        assert caller.identity.container is not None
        assert caller.identity.container.endswith(CONTAINER)
        assert caller.program.contained
        assert (caller.pod_uid, caller.pod) == (UID, directory.of(UID))
        assert (caller.container_name, caller.container_image) == ("app", "registry/app:1")
        accepted, peer = connected(pod, server)
        with accepted:
            assert resolver.resolve(resolver.look_up(accepted, peer)) is caller
        directory.addresses = {bytes(4)}  # the API server says that it has another address
        accepted, peer = connected(pod, server)
        with accepted:
            ticket = resolver.look_up(accepted, peer)
            caller = resolver.resolve(ticket) or resolver.scan(ticket)
        assert not caller.identity.resolved
        assert caller.why_unresolved == "its pod does not have that address"
    finally:
        resolver.close()
