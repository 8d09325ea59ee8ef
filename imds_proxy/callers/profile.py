"""The profile of one process that holds a caller's socket: from /proc to a Caller.

Knows nothing of how the process was found, and remembers nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.cgroups import Membership, parse_memberships, unified_path
from imds_proxy.callers.hostfiles import HostFiles
from imds_proxy.callers.procfs import Executable, ProcessView, Stat, parents_of, parse_cmdline
from imds_proxy.callers.redact import MAX_CHARACTERS, escaped, safe_command_line, safe_text
from imds_proxy.callers.runtimes import ContainerRecords
from imds_proxy.callers.script import script_of
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.callers.usernames import UserNames
from imds_proxy.policy.caller import Caller, Identity, Pod, Process, Program

_MAX_PATH = 1024
MAX_COMM = 64
_MAX_PARENT_CMDLINE = 256


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """All that can change in a process without its pid and start time changing: exec, setproctitle, a move
    to another cgroup, a new parent. Equal facts mean that a profile made earlier still holds.

    Of the command line only a digest is kept: it may hold secrets, and facts are remembered.
    """

    stat: Stat
    executable: Executable | None
    cmdline_digest: bytes
    cgroup: bytes


def read_facts(view: ProcessView) -> tuple[ProcessFacts, bytes] | None:
    """The facts, and the raw command line to make a profile from; None when the process is gone."""
    stat = view.stat()
    if stat is None:
        return None
    cmdline = view.cmdline()
    return ProcessFacts(stat, view.executable(), digest_of(cmdline), view.cgroup()), cmdline


def digest_of(cmdline: bytes) -> bytes:
    """What is remembered of a command line."""
    return blake2b(cmdline, digest_size=16).digest()


def made_the_socket(facts: ProcessFacts, owner: SocketOwner, tree: CgroupTree) -> bool:
    """Whether a holder's cgroup is the socket's own. One that differs was handed the socket by another.

    The socket's cgroup is a v2 fact; where v2 is not in use, or out of sight, every holder passes.
    """
    path = unified_path(facts.cgroup.decode("utf-8", "surrogateescape"))
    if owner.cgroup_id is None or path is None:
        return True
    actual = tree.id_of(path)
    return actual is None or actual == owner.cgroup_id


class PodNames(Protocol):
    """What is known of the pods of this machine, by the uid that the kubelet knows each by."""

    def of(self, uid: str) -> Pod | None:
        """The pod; None for one that is not known."""

    def may_have(self, uid: str, address: bytes) -> bool:
        """Whether it can call from this address (packed): not if it is known to have others."""

    def container(self, uid: str, container: str) -> tuple[str, str] | None:
        """Name and image of one of a pod's containers, by its id; None for one that is not known."""


class NoPodNames:
    """Nothing is known."""

    def of(self, uid: str) -> Pod | None:
        """None."""
        return None

    def may_have(self, uid: str, address: bytes) -> bool:
        """True."""
        return True

    def container(self, uid: str, container: str) -> tuple[str, str] | None:
        """None."""
        return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process is compared with: the user database, the host's files, its namespaces, the pods, what
    container runtimes wrote down."""

    names: UserNames
    files: HostFiles
    proc_root: str
    namespaces: tuple[str, ...] | None
    pods: PodNames = field(default_factory=NoPodNames)
    containers: ContainerRecords = field(default_factory=ContainerRecords)

    @classmethod
    def of_host(cls, names: UserNames, files: HostFiles, proc_root: str) -> Surroundings:
        """Those of pid 1; of our own process where pid 1 may not be looked at."""
        found = None
        for pid in (1, os.getpid()):
            if found is None:
                with suppress(OSError), ProcessView(pid, proc_root) as view:
                    found = view.namespaces()
        return cls(names, files, proc_root, found)


def build_caller(
    view: ProcessView, facts: ProcessFacts, cmdline: bytes, owner: SocketOwner, around: Surroundings
) -> Caller:
    """The caller that a process with these facts is; it may have ended since: then it has no name that a
    rule could match. May take a millisecond: it reads the ancestors.

    Groups, namespaces and parents are as at this first look at the process.
    """
    words = _words(cmdline)
    executable = facts.executable
    # First what only a living process shows; its ancestors take longer.
    namespaces, gids, script = view.namespaces(), view.gids(), _script(view, executable, words)
    parents = tuple(_parents(facts.stat.parent, around))
    membership = parse_memberships(facts.cgroup.decode("utf-8", "surrogateescape"))
    program = Program(
        exe=around.files.names_of(executable) if executable else frozenset(),
        sha256=around.files.sha256_of(view, executable) if executable else None,
        script=script,
        groups=_groups(gids, around.names),
        parents=frozenset().union(*(paths for _, paths in parents)),
        contained=bool(membership.container)
        or (namespaces is not None and around.namespaces is not None and namespaces != around.namespaces),
    )
    container_name, container_image = _container_of(membership, around)
    return Caller(
        identity=identity_of(owner, membership),
        user=_optional(around.names.name(owner.uid)),
        process=_process(view.pid, facts.stat, executable, words),
        start_ticks=facts.stat.start_ticks,
        program=program,
        parents=tuple(parent for parent, _ in parents),
        container_name=container_name,
        container_image=container_image,
        pod_uid=membership.pod,
        pod=around.pods.of(membership.pod) if membership.pod else None,
        is_self=view.pid == os.getpid(),
    )


def identity_of(owner: SocketOwner, membership: Membership) -> Identity:
    """The boundary, its names on one line. They are escaped, never cut: two must not become one."""
    return _identity(owner.uid, _optional(membership.unit), _optional(membership.container))


@lru_cache(maxsize=4096)
def _identity(uid: int, unit: str | None, container: str | None) -> Identity:
    """One object for each identity: memories find it without comparing."""
    return Identity(uid, unit, container)


def _container_of(membership: Membership, around: Surroundings) -> tuple[str | None, str | None]:
    """Name and image, in the orchestrator's words where it has some, else in the runtime's."""
    if membership.container is None:
        return None, None
    told = around.pods.container(membership.pod, membership.container) if membership.pod else None
    name, image = told or ("", "")
    if not (name and image):
        own_name, own_image = around.containers.of(membership.container)
        name, image = name or own_name or "", image or own_image or ""
    return _optional(name), _optional(image)


def _script(view: ProcessView, executable: Executable | None, words: list[str]) -> str | None:
    script = script_of(executable.path.rpartition("/")[2], words) if executable and words else None
    if not script:
        return None
    if not script.startswith(("/", "-")):
        script = view.absolute(script) or script
    return safe_command_line((script,))[0]


def _groups(gids: frozenset[int], names: UserNames) -> frozenset[str]:
    found = {str(gid) for gid in gids}
    found.update(name for gid in gids if (name := _optional(names.group(gid))))
    return frozenset(found)


def _parents(parent: int, around: Surroundings) -> Iterator[tuple[Process, frozenset[str]]]:
    for view in parents_of(parent, around.proc_root):
        stat = view.stat()
        if stat is not None:
            executable = view.executable()
            paths = around.files.names_of(executable) if executable else frozenset()
            words = _words(view.cmdline())
            yield _process(view.pid, stat, executable, words, _MAX_PARENT_CMDLINE), paths


def _process(
    pid: int, stat: Stat, executable: Executable | None, words: list[str], limit: int = MAX_CHARACTERS
) -> Process:
    return Process(
        pid=pid,
        exe=safe_text(executable.path, _MAX_PATH) if executable else None,
        comm=safe_text(stat.comm, MAX_COMM),
        cmdline=safe_command_line(words, limit),
    )


def _optional(text: str | None) -> str | None:
    return None if text is None else escaped(text)


def _words(cmdline: bytes) -> list[str]:
    return [word.decode("utf-8", "surrogateescape") for word in parse_cmdline(cmdline)]
