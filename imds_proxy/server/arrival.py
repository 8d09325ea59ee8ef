"""What is known of a connection before it has a transport, and how it loses one. Decides nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from imds_proxy.policy.caller import Caller


class Resting(Protocol):
    """A connection that may rest, as whoever would have it back sees it."""

    def leave(self) -> int | None:
        """Its descriptor for another process, and its end here; None, and no end, where it does not rest."""


Back = Callable[[Resting, Caller, bytes, bool], None]
"""Told of a connection that rests: whose it is, the head of its last request, and whether that was answered
by heart."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Its caller, or a coroutine for it, the epoch of that naming, the first bytes, and its ends: the peer's
    name and our own. `owed` is what is left of an answer; `back` is of who would have it back, and is called
    whenever it rests after a request whose head is known, while it answers by heart once a second at most."""

    caller: Caller | Coroutine[Any, Any, Caller]
    epoch: int
    data: bytes
    ends: tuple[object, object]
    owed: bytes = b""
    back: Back | None = None

    def forget(self) -> None:
        """Nobody will ask who it was."""
        if not isinstance(self.caller, Caller):
            self.caller.close()


def detached(transport: asyncio.Transport) -> int:
    """A connection's descriptor, which is from now on whoever's it is given to, without its transport."""
    transport.pause_reading()
    number = os.dup(transport.get_extra_info("socket").fileno())
    transport.abort()
    return number
