from __future__ import annotations

import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imds_proxy.callers.cgroupfs import Cgroup, CgroupTree
from imds_proxy.callers.procfs import pids_newest_first
from imds_proxy.callers.resolver import Resolver
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.callers.ticket import Ticket
from imds_proxy.callers.unseen import PID_UNKNOWN
from imds_proxy.policy.caller import Caller, Identity

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    with_socket = Resolver()
    yield with_socket
    with_socket.close()


def _accepted(resolver: Resolver, server: socket.socket) -> Ticket:
    """The ticket of the next connection, whose accepted socket lives as long as the test's server."""
    accepted, peer = server.accept()
    _OPEN.append(accepted)
    return resolver.look_up(accepted, peer)


def _holders(resolver: Resolver) -> set[int | None]:
    """The processes that hold the connection accepted last."""
    accepted = _OPEN[-1]
    return {_pid(holder) for holder in resolver.holders(accepted, accepted.getpeername())}


_OPEN: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _close_accepted() -> Iterator[None]:
    yield
    while _OPEN:
        _OPEN.pop().close()


def _pid(caller: Caller | None) -> int | None:
    return caller.process.pid if caller is not None and caller.process is not None else None


def _await_next_tick(ticket: Ticket) -> None:
    end = time.monotonic() + 5
    while time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") < ticket.accepted_ticks + 2:
        assert time.monotonic() < end


def test_a_new_process_needs_a_scan_and_is_known_after_it(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    ticket = _accepted(resolver, server)
    assert resolver.resolve(ticket) is None
    caller = resolver.scan(ticket)
    assert _pid(caller) == client.pid
    assert caller.identity.uid == os.geteuid()
    assert caller.identity.origin is None
    assert caller.script == "-c"
    assert caller.why_unresolved is None
    assert not caller.is_self
    client.connect(server, "another")
    assert resolver.resolve(_accepted(resolver, server)) is caller


def test_the_proxys_own_connection_is_a_loop(resolver: Resolver, server: socket.socket) -> None:
    with socket.create_connection(server.getsockname(), 5):
        caller = resolver.scan(_accepted(resolver, server))
    assert caller.is_self
    assert _pid(caller) == os.getpid()


def test_each_of_several_processes_of_a_user_is_told_apart(
    resolver: Resolver, server: socket.socket, new_client: Callable[..., Any]
) -> None:
    clients = [new_client() for _ in range(5)]
    for client in clients:
        client.connect(server)
        assert _pid(resolver.scan(_accepted(resolver, server))) == client.pid
    for client in clients:
        client.connect(server, "another")
        assert _pid(resolver.resolve(_accepted(resolver, server))) == client.pid


def test_a_process_that_exited_before_the_look_up_is_unresolved_and_never_root(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    client.end()
    ticket = _accepted(resolver, server)
    caller = resolver.resolve(ticket)
    assert ticket.owner is None
    assert caller is not None
    assert caller.identity == Identity(None, origin="127.0.0.1")
    assert caller.why_unresolved is not None
    assert resolver.scan(ticket) == caller


def test_a_process_that_exits_after_the_look_up_keeps_its_uid_and_passes_for_nobody(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    ticket = _accepted(resolver, server)
    client.end()
    assert resolver.resolve(ticket) is None
    caller = resolver.scan(ticket)
    assert caller.process is None
    assert caller.identity.uid == os.geteuid()
    assert caller.identity != Identity(os.geteuid())
    assert caller.why_unresolved == "no process holds the socket"


def test_where_no_process_is_found_the_cgroup_is_looked_up_once_and_before_the_look(
    server: socket.socket, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that ends with its process has no cgroup any more after a look of a quarter of a second."""
    looked: list[str] = []
    cgroup_of = CgroupTree.cgroup

    def cgroup(tree: CgroupTree, number: int) -> Cgroup:
        looked.append("cgroup")
        return cgroup_of(tree, number)

    def processes(root: str) -> list[int]:
        looked.append("processes")
        return pids_newest_first(root)

    monkeypatch.setattr(CgroupTree, "cgroup", cgroup)
    monkeypatch.setattr("imds_proxy.callers.resolver.pids_newest_first", processes)
    resolver = Resolver()
    client.connect(server)
    ticket = _accepted(resolver, server)
    client.end()
    assert ticket.owner is not None
    resolver.scan(replace(ticket, owner=replace(ticket.owner, cgroup_id=1)))
    resolver.close()
    assert looked == ["cgroup", "processes"]


def test_a_known_process_that_exits_after_the_look_up_is_not_named(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    assert _pid(resolver.scan(_accepted(resolver, server))) == client.pid
    client.connect(server, "another")
    ticket = _accepted(resolver, server)
    client.end()
    assert resolver.resolve(ticket) is None
    assert resolver.scan(ticket).process is None


def test_of_two_holders_the_newest_is_named_and_both_are_listed(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    child = int(client.run("result = os.fork() or signal.pause()"))
    try:
        ticket = _accepted(resolver, server)
        caller = resolver.scan(ticket)
        assert _pid(caller) == child
        assert _holders(resolver) == {client.pid, child}
    finally:
        os.kill(child, 9)


def test_a_program_with_threads_is_named_by_its_process_though_its_threads_are_newer(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.run("import threading, time; [threading.Thread(target=signal.pause).start() for _ in range(2)]")
    client.connect(server)
    ticket = _accepted(resolver, server)
    assert _pid(resolver.scan(ticket, resolver.capture(ticket))) == client.pid


def test_without_time_for_a_look_what_the_kernel_said_stands(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    caller = resolver.without_a_look(_accepted(resolver, server), "no time")
    assert (caller.identity.uid, caller.process, caller.why_unresolved) == (os.geteuid(), None, "no time")
    assert resolver.without_a_look(Ticket(None, "192.0.2.1", 0), "no time").identity.uid is None


def test_an_heir_born_after_the_connection_is_not_the_caller(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    ticket = _accepted(resolver, server)
    _await_next_tick(ticket)
    child = int(client.run("result = os.fork() or signal.pause()"))
    try:
        caller = resolver.scan(ticket)
        assert _pid(caller) == client.pid
        assert _holders(resolver) == {client.pid, child}
    finally:
        os.kill(child, 9)


def test_a_process_that_started_after_the_connection_is_never_named(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    ticket = _accepted(resolver, server)
    earlier = replace(ticket, accepted_ticks=1)
    assert resolver.scan(earlier).process is None
    assert _pid(resolver.scan(ticket)) == client.pid
    assert resolver.resolve(earlier) is None


def test_a_known_process_that_became_another_program_is_looked_at_again(
    resolver: Resolver, server: socket.socket, client: Any, tmp_path: Path
) -> None:
    host, port = server.getsockname()
    script = tmp_path / "other.py"
    script.write_text(
        f"import socket, sys\nc = socket.create_connection(({host!r}, {port}))\nsys.stdin.read()\n"
    )
    client.connect(server)
    first = resolver.scan(_accepted(resolver, server))
    client.tell(f"os.execv({sys.executable!r}, ['python3', {str(script)!r}])")
    ticket = _accepted(resolver, server)
    assert resolver.resolve(ticket) is None
    second = resolver.scan(ticket)
    assert (_pid(second), second.start_ticks) == (_pid(first), first.start_ticks)
    assert (first.script, second.script) == ("-c", str(script))


@pytest.mark.root
@needs_root
def test_another_users_process_has_that_users_uid(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.run("os.setgroups([]); os.setgid(65534); os.setuid(65534)")
    client.connect(server)
    caller = resolver.scan(_accepted(resolver, server))
    assert caller.identity.uid == 65534
    assert _pid(caller) == client.pid


@pytest.mark.root
@needs_root
def test_root_in_a_user_namespace_is_not_root(
    resolver: Resolver, server: socket.socket, new_client: Callable[..., Any]
) -> None:
    client = new_client()
    client.run("os.setgroups([]); os.setgid(65534); os.setuid(65534)")
    client.run("result = ctypes.CDLL(None).prctl(4, 1)")  # /proc/self/* is its own again
    if client.run("result = ctypes.CDLL(None).unshare(0x10000000)") != "0":
        pytest.skip("no user namespaces for ordinary users here")
    client.run("open('/proc/self/uid_map', 'w').write('0 65534 1')")
    assert client.run("result = os.geteuid()") == "0"
    client.connect(server)
    assert resolver.scan(_accepted(resolver, server)).identity.uid == 65534


@pytest.mark.root
@needs_root
def test_a_service_is_named_by_its_cgroup_even_after_its_process_is_gone(
    resolver: Resolver, server: socket.socket, client: Any, new_cgroup: Callable[[str], Path]
) -> None:
    unit = f"imds-test-{os.getpid()}.service"
    (new_cgroup(unit) / "cgroup.procs").write_text(str(client.pid))
    client.connect(server)
    seen = resolver.scan(_accepted(resolver, server))
    assert _pid(seen) == client.pid
    assert seen.identity == Identity(os.geteuid(), unit=unit)
    client.connect(server, "another")
    ticket = _accepted(resolver, server)
    client.end()
    gone = resolver.scan(ticket)
    assert gone.process is None
    assert gone.why_unresolved is not None
    assert gone.identity == seen.identity


@pytest.mark.root
@needs_root
def test_a_socket_made_in_one_service_and_held_in_another_is_not_the_others(
    resolver: Resolver, server: socket.socket, client: Any, new_cgroup: Callable[[str], Path]
) -> None:
    maker, holder = (new_cgroup(f"imds-test-{name}-{os.getpid()}.service") for name in ("maker", "holder"))
    (maker / "cgroup.procs").write_text(str(client.pid))
    client.connect(server)
    (holder / "cgroup.procs").write_text(str(client.pid))
    caller = resolver.scan(_accepted(resolver, server))
    assert caller.process is None
    assert caller.identity.unit == maker.name


def test_without_a_peer_address_the_caller_is_unresolved(resolver: Resolver, server: socket.socket) -> None:
    with socket.create_connection(server.getsockname(), 5):
        accepted, _ = server.accept()
        with accepted:
            ticket = resolver.look_up(accepted, None)
    caller = resolver.resolve(ticket)
    assert caller is not None
    assert caller.identity == Identity(None)
    assert caller.why_unresolved == "no peer address"


def test_a_peer_address_that_is_not_the_peers_finds_nobody(resolver: Resolver, server: socket.socket) -> None:
    with socket.create_connection(server.getsockname(), 5):
        accepted, peer = server.accept()
        with accepted:
            assert resolver.look_up(accepted, ("127.0.0.2", peer[1])).owner is None
            assert resolver.look_up(accepted, ("not an address", peer[1])).owner is None


def test_without_proc_the_uid_is_known_and_the_rest_is_not(
    server: socket.socket, client: Any, tmp_path: Path
) -> None:
    resolver = Resolver(proc_root=str(tmp_path))
    client.connect(server)
    caller = resolver.scan(_accepted(resolver, server))
    resolver.close()
    assert caller.identity.uid == os.geteuid()
    assert caller.process is None


def test_an_identity_without_a_process_differs_from_one_without_a_unit(resolver: Resolver) -> None:
    caller = resolver.scan(Ticket(SocketOwner(0, 2**31, None), "127.0.0.1", 2**40))
    assert caller.identity == Identity(0, origin=PID_UNKNOWN)
    assert not caller.identity.resolved


def test_scans_in_many_threads_give_each_its_own_caller(
    resolver: Resolver, server: socket.socket, new_client: Callable[..., Any]
) -> None:
    clients = [new_client() for _ in range(4)]
    tickets = []
    for round_number in range(5):
        for client in clients:
            client.connect(server, f"connection_{round_number}")
            tickets.append((client.pid, _accepted(resolver, server)))
    barrier = threading.Barrier(8)

    def name(item: tuple[int, Ticket]) -> tuple[int, int | None]:
        with suppress(threading.BrokenBarrierError):
            barrier.wait(0.5)
        return item[0], _pid(resolver.resolve(item[1]) or resolver.scan(item[1]))

    with ThreadPoolExecutor(8) as pool:
        for expected, named in pool.map(name, tickets):
            assert named == expected


def test_a_repeat_caller_is_named_in_far_less_than_a_millisecond(
    resolver: Resolver, server: socket.socket, client: Any
) -> None:
    client.connect(server)
    resolver.scan(_accepted(resolver, server))
    durations = []
    for number in range(100):
        client.connect(server, f"connection_{number}")
        accepted, peer = server.accept()
        _OPEN.append(accepted)
        start = time.perf_counter()
        caller = resolver.resolve(resolver.look_up(accepted, peer))
        durations.append(time.perf_counter() - start)
        assert _pid(caller) == client.pid
    assert statistics.median(durations) < 0.0007


def test_no_descriptor_is_left_open(server: socket.socket, client: Any) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    resolver = Resolver()
    for number in range(20):
        client.connect(server, f"connection_{number}")
        accepted, peer = server.accept()
        with accepted:
            ticket = resolver.look_up(accepted, peer)
            caller = resolver.resolve(ticket) or resolver.scan(ticket)
            assert [_pid(one) for one in resolver.holders(accepted, peer)] == [_pid(caller)]
    resolver.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
