"""A caller that connects again is told from its connection alone, and only while it is what it was."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from imds_proxy.callers.familiar import FamiliarByNote, FamiliarBySocket
from imds_proxy.callers.procfs import ProcessView
from imds_proxy.callers.profile import read_facts
from imds_proxy.callers.recent import TRUST, Habits, RecentProcesses, SeenProcess
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


@pytest.mark.parametrize("becomes", ["another program", "nothing"])
def test_23_a_note_of_before_is_not_believed_of_what_the_process_became(
    client: Any, connected: tuple[socket.socket, socket.socket], becomes: str
) -> None:
    """The kernel notes of it what it noted before: the same pid, uid, cgroup and name."""
    caller, accepted = connected
    client.run("pass")
    view = ProcessView(client.pid)
    view.keep()
    found = read_facts(view)
    assert found is not None
    notes, recent = Notes(), RecentProcesses()
    recent.note(b"pid of alice", SeenProcess(view, found[0], ALICE, Habits(3)))
    notes.who_by_port[caller.getsockname()[1]] = b"pid of alice"
    familiar = FamiliarByNote(notes, lambda: recent)  # type: ignore[arg-type]  # a stand-in
    question = (accepted.fileno(), sockaddr(caller.getsockname()), None)
    assert familiar.of(*question) is ALICE
    if becomes == "nothing":
        client.end()
        time.sleep(TRUST)
    else:
        client.tell("os.execv(sys.executable, [sys.executable, '-c', 'import signal; signal.pause()'])")
        end = time.monotonic() + 5
        while familiar.of(*question) is not None:
            assert time.monotonic() < end
    assert familiar.of(*question) is None


def test_a_reload_in_the_midst_of_a_look_up_harms_nobody_and_is_not_undone(
    connected: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, accepted = connected
    resolver = Resolver()
    is_the_same = SeenProcess.is_the_same

    def meanwhile(process: SeenProcess) -> bool:
        resolver.forget()
        return is_the_same(process)

    try:
        ticket = resolver.look_up(accepted, caller.getsockname())
        known = resolver.scan(ticket)
        monkeypatch.setattr(SeenProcess, "is_the_same", meanwhile)
        assert resolver.resolve(ticket) is known
        monkeypatch.undo()
        assert resolver.resolve(ticket) is None  # what was known before is to be looked at anew
    finally:
        resolver.close()
