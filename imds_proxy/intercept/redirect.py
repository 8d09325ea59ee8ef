"""What a redirect is: its plan, its errors, and what each method of it can do.

Methods (`nftables`, `ebpf`) follow the Protocol here; this module touches no kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from imds_proxy.config_values import Address

LEASE = 2.0
"""Seconds after which a redirect that is not renewed lapses: the dead man's switch."""
RENEWAL = 0.5
"""Seconds between renewals."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a redirect is to do.

    `services` are what callers connect to, `listeners` where these connections are to arrive: at most one
    of each address family; a service without a listener of its family is left alone. Sockets of ours carry
    the mark `mark` or belong to `exempt_uid` (None: no user is exempt). `forwarded` are names of interfaces
    (`cni*`, `docker0`; `*`: all but lo) whose forwarded traffic is redirected too. `closed` says that calls
    are refused when nobody serves; else they go to the service itself. `lease` is in seconds; None: the
    redirect stands without renewal. Without `owner_table` the kernel's owner tables are not used.
    """

    services: tuple[Address, ...]
    listeners: tuple[Address, ...]
    mark: int
    exempt_uid: int | None = None
    forwarded: tuple[str, ...] = ()
    closed: bool = False
    lease: float | None = LEASE
    owner_table: bool = True

    def pairs(self) -> Iterator[tuple[Address, Address]]:
        """Each service with the listener of its address family."""
        for service in self.services:
            for listener in self.listeners:
                if (":" in service.host) == (":" in listener.host):
                    yield service, listener


@dataclass(frozen=True, slots=True)
class RedirectStatus:
    """`held_by` says what keeps it in force: `owner-table`, `lease` (a table that lapses unless renewed),
    `table` (one that stands), `link` (eBPF), or None. `name` is what to look for in the kernel; `notes` are
    sentences on what is less than it could be."""

    method: str
    in_force: bool
    held_by: str | None = None
    name: str | None = None
    notes: tuple[str, ...] = ()


class InterceptError(Exception):
    """Why there is no redirect. `slug` names the cause, the text says what is wrong, `remedy` what to do."""

    def __init__(self, slug: str, sentence: str, remedy: str = "") -> None:
        super().__init__(f"{sentence}; {remedy}" if remedy else sentence)
        self.slug = slug


class Redirect(Protocol):
    """One method of redirecting. Not thread-safe; a call takes a millisecond, or as long as another tool
    holds the kernel's rules."""

    def up(self) -> None:
        """Puts it in force; a second time changes nothing. Raises InterceptError: then nothing is left."""

    def renew(self) -> str | None:
        """To be called each RENEWAL seconds by the event loop, so that a hung daemon lets go.

        What was found amiss and put right, as a sentence for the log, else None. Raises InterceptError when
        it is no longer in force and cannot be put back.
        """

    def open_way(self) -> None:
        """New calls go to the service from now on; those under way still come here. `down` is to follow.

        Raises InterceptError.
        """

    def down(self) -> None:
        """Takes it away without a trace; does nothing where it is not up. Raises InterceptError.

        Calls under way may break: with the last rule of its kind the kernel ends all address translation.
        """

    def release(self) -> None:
        """Lets go as the daemon ends: what is to outlive it (`closed`) stays, all else is taken away."""

    def status(self) -> RedirectStatus:
        """What is in force now, as the kernel says."""

    def descriptors(self) -> dict[str, int]:
        """The descriptors that keep it in force, by name: who holds copies (systemd's file descriptor
        store) keeps it over this process's death. Empty where nothing does."""
