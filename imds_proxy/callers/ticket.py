"""What the kernel said of a connection at accept, as a value. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from imds_proxy.callers.connects import ConnectNote
from imds_proxy.callers.sockdiag import Endpoint, SockDiag, SocketOwner


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the kernel said at accept. `owner` is None for an unresolved caller, then `why` says the reason.
    With a `note` of the connect its process is known too, and `owner` is made of it (without an inode).
    `origin` is the peer's address as text, None when there was none. `accepted_ticks` is the time of the
    look-up in clock ticks since boot, the unit of a process's start time. `ends` are the connection's as its
    client has them, `diag` asks where they are; `elsewhere`: in another network namespace than ours.
    """

    owner: SocketOwner | None
    origin: str | None
    accepted_ticks: int
    why: str | None = None
    note: ConnectNote | None = None
    ends: tuple[Endpoint, Endpoint] | None = None
    diag: SockDiag | None = None
    elsewhere: bool = False
