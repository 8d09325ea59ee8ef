"""What is written to the ledger, as values: who a caller stably is, sums, spans. Pure.

Knows nothing of SQL, threads or clocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from imds_proxy.policy.caller import Caller, Pod

_DIGEST = 16  # bytes


@dataclass(frozen=True, slots=True)
class StableCaller:
    """What stays the same of a caller from process to process and, where the orchestrator says so, from
    container to container.

    `container` is an id, `image` what it was made of, `pod` is `namespace/owner`; `origin` is there for a
    caller that could not be named. `cmdline` is an example, already without secrets.
    """

    exe: str | None = None
    script: str | None = None
    user: str | None = None
    uid: int | None = None
    unit: str | None = None
    container: str | None = None
    image: str | None = None
    pod: str | None = None
    origin: str | None = None
    cmdline: str | None = None

    @classmethod
    def of(cls, caller: Caller) -> StableCaller:
        """The stable facts of a caller."""
        process, identity = caller.process, caller.identity
        return cls(
            exe=process.exe if process else None,
            script=caller.script,
            user=caller.user,
            uid=identity.uid,
            unit=identity.unit,
            container=identity.container,
            image=caller.container_image,
            pod=pod_owner(caller.pod) if caller.pod else None,
            origin=identity.origin,
            cmdline=(" ".join(process.cmdline) or None) if process else None,
        )

    @property
    def key(self) -> bytes:
        """The same on every host: a digest of what names it, the best known name of each kind."""
        place = self.pod or self.image or self.container or self.unit
        who = self.user if self.user is not None else self.uid
        kind = next((k for k in ("pod", "image", "container", "unit") if getattr(self, k) is not None), None)
        facts = (self.exe, self.script, who, kind, place)
        return blake2b(json.dumps(facts).encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()

    def without_program(self) -> StableCaller:
        """Some program of the same identity: what too many are counted as."""
        return replace(self, exe=None, script=None, cmdline=None)


def pod_owner(pod: Pod) -> str:
    """`namespace/owner`: the name without what its controller added, where labels tell what that is."""
    name, labels = pod.name, pod.labels
    template = labels.get("pod-template-hash")
    if template and f"-{template}-" in name:  # Deployment
        name = name.partition(f"-{template}-")[0]
    elif "controller-revision-hash" in labels or "job-name" in labels:  # StatefulSet, DaemonSet, Job
        name = labels.get("job-name") or name.rpartition("-")[0] or name
    return f"{pod.namespace}/{name}"


@dataclass(frozen=True, slots=True)
class Alike:
    """What requests of one caller have in common that are counted together; most are columns of `hours`.

    `path` is None where it names no item worth to keep.
    """

    caller: StableCaller
    session: str
    path: str | None
    item: str
    decision: str = "allowed"
    reason: str = ""
    cause: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Watch:
    """How the proxy watches: what `spans` keeps. `interception`: redirect (in force), address (the proxy
    owns the service's own address), observe (packets are watched), down (a redirect that is wanted and not
    in force), none (callers come of their own accord)."""

    mode: str
    enforcement: str
    interception: str
    version: str


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on both clocks: Unix seconds, and CLOCK_BOOTTIME of this boot."""

    wall: float
    boot: float


@dataclass(frozen=True, slots=True)
class Batch:
    """What happened since the last batch: sums of requests, and that the proxy watches until `at`."""

    at: Moment
    watch: Watch
    sums: Sequence[tuple[Alike, int]] = ()
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Described:
    """What detection found of a caller: `client` has name, version, where; `advice` is sentences for a
    developer, `fix` the same without places (None: nothing is to be changed, or known); `credentials`:
    whether it reads any."""

    key: bytes
    client: Mapping[str, str | None] | None
    findings: tuple[Mapping[str, Any], ...] = ()
    advice: str | None = None
    fix: str | None = None
    credentials: bool | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """A program that was looked for on this machine, called or not (cloud-init, an agent), and when.

    `where` None: it is not there; `version` None: it does not say. `advice` is what must be done before
    normal mode is refused, None for nothing.
    """

    name: str
    version: str | None
    where: str | None
    seen: float
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """That requests of a time (Unix seconds) were not counted, why, and how many of them or of callers."""

    begin: float
    end: float
    reason: str
    count: int


Entry = Batch | Described | Installed | Lost
