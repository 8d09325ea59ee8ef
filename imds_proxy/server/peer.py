"""What a connection knows of its other end. Decides nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from imds_proxy.ledger.tally import CallerTally
from imds_proxy.policy.caller import Caller
from imds_proxy.server.memory import Remembered
from imds_proxy.server.plans import Failure


async def _unknown() -> tuple[Caller, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Peer:
    """The caller, the Host values it may send, what is remembered for callers like it and of its client
    program, how to find the processes that hold its end (raises Refused), and its counts."""

    caller: Caller
    hosts: frozenset[bytes]
    remembered: Remembered = field(default_factory=Remembered)
    failure: Failure = field(default_factory=Failure)
    holders: Callable[[], Awaitable[tuple[Caller, ...]]] = _unknown
    tally: CallerTally | None = None
