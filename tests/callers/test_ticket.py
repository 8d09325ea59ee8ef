"""The kernel's word on a connection: either an owner or a reason."""

from __future__ import annotations

from imds_proxy.callers.resolver import Resolver
from imds_proxy.callers.sockdiag import Endpoint


def test_a_connection_that_is_none_has_a_reason_and_no_owner() -> None:
    resolver = Resolver()
    ticket = resolver.look_up_ends(Endpoint.parse("127.0.0.1", 1), Endpoint.parse("127.0.0.1", 2))
    assert ticket.owner is None
    assert ticket.why == "no live socket on this machine has this connection"
    assert ticket.origin == "127.0.0.1"
    resolver.close()
