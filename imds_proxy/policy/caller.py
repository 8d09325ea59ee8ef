"""Who a caller is, as values. Knows nothing of how the kernel was asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """The security boundary: uid plus systemd unit or container.

    `uid` is None for an unresolved caller; then `origin` (its IP address as text, or why the process is
    unknown) keeps those apart that must not share a token. `unit` is the systemd unit (for a login session
    the user's slice), `container` a container id; at most one of the two is set.
    """

    uid: int | None
    unit: str | None = None
    container: str | None = None
    origin: str | None = None

    @property
    def resolved(self) -> bool:
        """Whether the kernel named all of it: the uid, and with it the unit or container, if any.

        A known uid whose process was not found has an `origin` too, and is not resolved.
        """
        return self.uid is not None and self.origin is None


@dataclass(frozen=True, slots=True)
class Process:
    """One process: facts (`pid`, `exe`) and claims (`comm`, `cmdline`, already redacted and bounded)."""

    pid: int
    exe: str | None = None
    comm: str | None = None
    cmdline: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """One connection's caller. Absent facts are None, never guessed.

    `start_ticks` is the process's start time (field 22 of /proc/PID/stat): with `pid` it names one
    process over pid reuse. `script` is what an interpreter runs. `parents` go up to init, nearest first.
    `why_unresolved` is a short reason, None when uid and process are known.
    """

    identity: Identity
    user: str | None = None
    process: Process | None = None
    start_ticks: int | None = None
    script: str | None = None
    parents: tuple[Process, ...] = ()
    is_self: bool = False
    why_unresolved: str | None = None
