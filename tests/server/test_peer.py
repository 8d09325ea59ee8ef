"""What is known of the other end of a connection, when nothing was said of it."""

from __future__ import annotations

import asyncio

from imds_proxy.policy.caller import Caller, Identity
from imds_proxy.server.peer import Peer


async def _holders(peer: Peer) -> tuple[Caller, ...]:
    return await peer.holders()


def test_nobody_else_holds_its_end_and_nothing_is_remembered_of_it() -> None:
    one, other = Peer(Caller(Identity(0)), frozenset()), Peer(Caller(Identity(0)), frozenset())
    assert asyncio.run(_holders(one)) == ()
    assert one.remembered is not other.remembered
    assert one.failure is not other.failure
