"""Who a caller is, as values. Knows nothing of how the kernel was asked."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


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
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # It is the key of most memories on the hot path, and is looked up far more often than made.
        object.__setattr__(self, "_hash", hash((self.uid, self.unit, self.container, self.origin)))

    def __hash__(self) -> int:
        return self._hash

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
class Pod:
    """A Kubernetes pod, as the API server or kubelet names it."""

    namespace: str
    name: str
    service_account: str
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Program:
    """What rules may ask of a process beyond its identity. Absent facts are None or empty, never guessed.

    `exe` are paths in the host's root that are this very file (device and inode agree): the process's own,
    and those that rules name; `parents` the same of its ancestors. `sha256` (lower-case hex) is of the
    executable file and is there where a rule asks for it. `script` is what an interpreter runs, a relative
    path made absolute. `groups` are names and numbers of all its groups. `contained`: in a container, or in
    a pid, user or cgroup namespace of its own.
    """

    exe: frozenset[str] = frozenset()
    sha256: str | None = None
    script: str | None = None
    groups: frozenset[str] = frozenset()
    parents: frozenset[str] = frozenset()
    contained: bool = False


class Profile:
    """All that rules see of a caller: equal ones are decided alike, whatever their pid. Hashed once."""

    __slots__ = ("_facts", "_hash")

    def __init__(self, facts: Hashable) -> None:
        self._facts, self._hash = facts, hash(facts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Profile) and self._facts == other._facts)


@dataclass(frozen=True, slots=True)
class Caller:
    """One connection's caller. Absent facts are None, never guessed.

    `start_ticks` is the process's start time (field 22 of /proc/PID/stat): with `pid` it names one
    process over pid reuse. `parents` go up to init, nearest first. `container_name` and `container_image`
    are the runtime's words. `pod_uid` is the kubelet's, from the cgroup's name; `pod` is what the API server
    says of it. `why_unresolved` is a short reason, None when uid and process are known.
    """

    identity: Identity
    user: str | None = None
    process: Process | None = None
    start_ticks: int | None = None
    program: Program = Program()
    parents: tuple[Process, ...] = ()
    container_name: str | None = None
    container_image: str | None = None
    pod_uid: str | None = None
    pod: Pod | None = None
    is_self: bool = False
    why_unresolved: str | None = None
    profile: Profile = field(init=False, repr=False, compare=False)

    @property
    def script(self) -> str | None:
        """What an interpreter runs."""
        return self.program.script

    def __post_init__(self) -> None:
        pod = self.pod
        facts = (
            self.identity,
            self.user,
            self.program,
            self.container_name,
            self.container_image,
            pod and (pod.namespace, pod.name, pod.service_account, frozenset(pod.labels.items())),
        )
        object.__setattr__(self, "profile", Profile(facts))
