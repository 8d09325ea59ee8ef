"""The bounded look-up of callers, with the kernel's own answers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from imds_proxy.callers.resolver import Resolver
from imds_proxy.policy.caller import Caller
from imds_proxy.server.attribution import BoundedAttribution


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
