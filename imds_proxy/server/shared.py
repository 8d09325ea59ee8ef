"""What all connections of the daemon share. Decides nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from imds_proxy.policy.caller import Caller
from imds_proxy.protocol.request import HeadRules
from imds_proxy.server.connections import ConnectionRegister
from imds_proxy.server.memory import Memory
from imds_proxy.server.service import Service


class Attribution(Protocol):
    """Names the other end of an accepted connection."""

    def familiar(self, accepted: int, peer: bytes, local: bytes | None) -> Caller | None:
        """The caller, where a look at the connection's descriptor and ends (sockaddr) tells."""

    def begin(self, accepted: socket.socket, peer: object) -> Caller | Coroutine[Any, Any, Caller]:
        """The caller, at once where that is cheap, else a coroutine for it; never raises."""

    async def holders(self, accepted: socket.socket, peer: object) -> tuple[Caller, ...]:
        """The processes that hold the caller's end of the connection now. Raises Refused."""

    @property
    def epoch(self) -> int:
        """Which naming of callers is in force: those named in an earlier one are to be named again."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: a head must be whole within `head`, an idle connection closes after `idle`, one whose
    client does not read after `write`."""

    head: float
    idle: float
    write: float


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of the daemon share."""

    rules: HeadRules
    service: Service
    attribution: Attribution
    register: ConnectionRegister[Any]
    memory: Memory
    times: Times
    hosts: Callable[[object], frozenset[bytes]]
    clock: Callable[[], float]
