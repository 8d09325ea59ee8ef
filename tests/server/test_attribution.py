"""The bounded look-up of callers, with the kernel's own answers."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator

import pytest

from imds_proxy.callers.resolver import Resolver
from imds_proxy.policy.caller import Caller
from imds_proxy.server.attribution import BoundedAttribution, look_before_they_leave


@pytest.fixture
def attribution() -> Iterator[BoundedAttribution]:
    attribution = BoundedAttribution(Resolver())
    yield attribution
    attribution.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            yield client, accepted


def name(attribution: BoundedAttribution, accepted: socket.socket, peer: object) -> Caller:
    async def main() -> Caller:
        caller = attribution.begin(accepted, peer)
        return caller if isinstance(caller, Caller) else await caller

    return asyncio.run(main())


def test_a_new_process_is_found_by_a_scan_and_then_known_at_once(
    attribution: BoundedAttribution, ends: tuple[socket.socket, socket.socket]
) -> None:
    _, accepted = ends
    peer = accepted.getpeername()
    first = name(attribution, accepted, peer)
    assert first.process is not None
    assert first.process.pid == os.getpid()
    assert first.is_self
    again = attribution.begin(accepted, peer)
    assert isinstance(again, Caller)
    assert again.process == first.process


def test_a_look_that_takes_too_long_leaves_what_the_kernel_said(
    attribution: BoundedAttribution,
    ends: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Resolver, "scan", lambda *_: time.sleep(0.6))
    _, accepted = ends
    caller = name(attribution, accepted, accepted.getpeername())
    assert (caller.identity.uid, caller.process) == (os.geteuid(), None)
    assert caller.why_unresolved == "the look-up took too long"
    assert attribution.unresolved == 1


@pytest.mark.parametrize("peer", [None, (), "unix"])
def test_without_a_peer_name_the_caller_is_unresolved_and_counted(
    attribution: BoundedAttribution, ends: tuple[socket.socket, socket.socket], peer: object
) -> None:
    _, accepted = ends
    caller = name(attribution, accepted, peer)
    assert not caller.identity.resolved
    assert caller.why_unresolved is not None
    assert attribution.unresolved == 1


def test_one_that_has_gone_is_unresolved_and_never_root(
    attribution: BoundedAttribution, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, accepted = ends
    peer = accepted.getpeername()
    client.close()
    caller = name(attribution, accepted, peer)
    assert caller.identity.uid is None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: CAP_SYS_NICE")
def test_the_daemon_goes_before_ordinary_processes_where_it_may() -> None:
    def child(user: int, nice: int) -> int:
        pid = os.fork()
        if pid == 0:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            os.setuid(user)
            look_before_they_leave()
            os._exit(os.getpriority(os.PRIO_PROCESS, 0) + 20)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) - 20

    assert child(0, 0) == -15
    assert child(0, -19) == -19, "never behind what its unit says"
    assert child(65534, 0) == 0, "without the right it goes on as it is"
