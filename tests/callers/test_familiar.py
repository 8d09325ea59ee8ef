"""A caller that connects again is told from its connection alone, and only while it is what it was."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from imds_proxy.callers.familiar import FamiliarByNote, FamiliarBySocket
from imds_proxy.callers.recent import TRUST, RecentProcesses
from imds_proxy.callers.resolver import Resolver
from imds_proxy.callers.sockdiag import SockDiag
from imds_proxy.policy.caller import Caller, Identity

ALICE = Caller(Identity(1000, unit="alice.service"))


def sockaddr(name: tuple[str, int]) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", name[1], socket.inet_aton(name[0]))


class Notes:
    """What the kernel would say of each connect, by the client's port."""

    def __init__(self) -> None:
        self.who_by_port: dict[int, bytes] = {}
        self.asked: list[tuple[bytes, bytes]] = []

    def who(self, client: bytes, to: bytes) -> bytes | None:
        self.asked.append((client, to))
        (port,) = struct.unpack_from("!H", client, 2)
        return self.who_by_port.get(port)


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection: the caller's, ours."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        caller = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with caller, accepted:
            yield caller, accepted


class Looked:
    """A process that was looked at; `same`: whether it is what it was."""

    caller = ALICE
    same = True

    def is_the_same(self) -> bool:
        return self.same


def test_who_was_looked_at_is_known_again_by_the_same_note_while_it_is_what_it_was(
    connected: tuple[socket.socket, socket.socket],
) -> None:
    caller, accepted = connected
    notes, recent, process = Notes(), RecentProcesses(), Looked()
    familiar = FamiliarByNote(notes, lambda: recent)  # type: ignore[arg-type]  # a stand-in
    peer = sockaddr(caller.getsockname())
    question = (accepted.fileno(), peer, None)
    recent.note(b"pid 7 of alice", process)  # type: ignore[arg-type]
    assert familiar.of(*question) is None  # no note
    assert notes.asked == [(peer, sockaddr(accepted.getsockname()))]
    port = caller.getsockname()[1]
    notes.who_by_port[port] = b"pid 7 of alice"
    assert familiar.of(*question) is ALICE
    notes.who_by_port[port] = b"pid 7 of bob"
    assert familiar.of(*question) is None
    notes.who_by_port[port] = b"pid 7 of alice"
    process.same = False  # it runs another program
    assert familiar.of(*question) is None
    process.same = True
    recent = RecentProcesses()  # all are to be named anew
    assert familiar.of(*question) is None


def test_of_ipv6_nothing_is_known_here() -> None:
    familiar = FamiliarByNote(Notes(), RecentProcesses)  # type: ignore[arg-type]
    peer = struct.pack("=H", socket.AF_INET6) + bytes(26)
    assert familiar.of(0, peer, None) is None
    with SockDiag() as diag:
        assert FamiliarBySocket(diag, RecentProcesses).of(0, peer, None) is None


def test_by_its_socket_a_process_is_known_once_it_was_looked_at(
    connected: tuple[socket.socket, socket.socket],
) -> None:
    caller, accepted = connected
    resolver = Resolver()
    try:
        assert isinstance(resolver.familiar, FamiliarBySocket)
        peer, local = sockaddr(caller.getsockname()), sockaddr(accepted.getsockname())
        assert resolver.familiar.of(accepted.fileno(), peer, local) is None
        known = resolver.scan(resolver.look_up(accepted, caller.getsockname()))
        assert known.process is not None
        assert resolver.familiar.of(accepted.fileno(), peer, local) is known
        time.sleep(TRUST)  # then it is looked at again
        assert resolver.familiar.of(accepted.fileno(), peer, None) is known
        caller.close()  # there is no such socket any more
        assert resolver.familiar.of(accepted.fileno(), peer, local) is None
    finally:
        resolver.close()
