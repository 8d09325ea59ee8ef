"""The profile of one process that holds a caller's socket: from /proc to a Caller.

Knows nothing of how the process was found, and remembers nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.cgroups import Membership, parse_memberships, unified_path
from imds_proxy.callers.procfs import Executable, ProcessView, Stat, parents_of, parse_cmdline
from imds_proxy.callers.redact import MAX_CHARACTERS, escaped, safe_command_line, safe_text
from imds_proxy.callers.script import script_of
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.callers.usernames import UserNames
from imds_proxy.policy.caller import Caller, Identity, Process

_MAX_PATH = 1024
_MAX_COMM = 64
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
    digest = blake2b(cmdline, digest_size=16).digest()
    return ProcessFacts(stat, view.executable(), digest, view.cgroup()), cmdline


def made_the_socket(facts: ProcessFacts, owner: SocketOwner, tree: CgroupTree) -> bool:
    """Whether a holder's cgroup is the socket's own. One that differs was handed the socket by another.

    The socket's cgroup is a v2 fact; where v2 is not in use, or out of sight, every holder passes.
    """
    path = unified_path(facts.cgroup.decode("utf-8", "surrogateescape"))
    if owner.cgroup_id is None or path is None:
        return True
    actual = tree.id_of(path)
    return actual is None or actual == owner.cgroup_id


def build_caller(
    pid: int, facts: ProcessFacts, cmdline: bytes, owner: SocketOwner, names: UserNames, proc_root: str
) -> Caller:
    """The caller that a process with these facts is; it may have ended since. May take a millisecond: it
    reads the ancestors."""
    words = _words(cmdline)
    executable = facts.executable
    script = script_of(executable.path.rpartition("/")[2], words) if executable and words else None
    membership = parse_memberships(facts.cgroup.decode("utf-8", "surrogateescape"))
    return Caller(
        identity=identity_of(owner, membership),
        user=_optional(names.name(owner.uid)),
        process=_process(pid, facts.stat, executable, words),
        start_ticks=facts.stat.start_ticks,
        script=safe_command_line((script,))[0] if script else None,
        parents=tuple(_parents(facts.stat.parent, proc_root)),
        is_self=pid == os.getpid(),
    )


def identity_of(owner: SocketOwner, membership: Membership) -> Identity:
    """The boundary, its names on one line. They are escaped, never cut: two must not become one."""
    return Identity(owner.uid, _optional(membership.unit), _optional(membership.container))


def _parents(parent: int, proc_root: str) -> list[Process]:
    found = []
    for view in parents_of(parent, proc_root):
        stat = view.stat()
        if stat is not None:
            words = _words(view.cmdline())
            found.append(_process(view.pid, stat, view.executable(), words, _MAX_PARENT_CMDLINE))
    return found


def _process(
    pid: int, stat: Stat, executable: Executable | None, words: list[str], limit: int = MAX_CHARACTERS
) -> Process:
    return Process(
        pid=pid,
        exe=safe_text(executable.path, _MAX_PATH) if executable else None,
        comm=safe_text(stat.comm, _MAX_COMM),
        cmdline=safe_command_line(words, limit),
    )


def _optional(text: str | None) -> str | None:
    return None if text is None else escaped(text)


def _words(cmdline: bytes) -> list[str]:
    return [word.decode("utf-8", "surrogateescape") for word in parse_cmdline(cmdline)]
