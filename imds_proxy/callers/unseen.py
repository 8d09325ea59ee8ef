"""A caller whose process was not looked at: the kernel's own facts, and nothing that a process says.

Knows nothing of why: its process has gone, hides, or there was no time.
"""

from __future__ import annotations

from dataclasses import replace

from imds_proxy.callers.cgroupfs import Cgroup
from imds_proxy.callers.cgroups import path_membership
from imds_proxy.callers.connects import ConnectNote
from imds_proxy.callers.profile import MAX_COMM, identity_of
from imds_proxy.callers.redact import safe_text
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.callers.usernames import UserNames
from imds_proxy.policy.caller import Caller, Identity, Process

# The origin of a caller whose uid is known and whose unit is not: it must never pass as "no unit".
PID_UNKNOWN = "pid-unknown"


def unseen_caller(
    owner: SocketOwner, cgroup: Cgroup | None, note: ConnectNote | None, names: UserNames, why: str
) -> Caller:
    """Of a live socket: its uid is a fact, and on v2 hosts so is its cgroup. With a note of the connect also
    the pid, and what the process called itself."""
    caller = _by_cgroup(owner, cgroup, why)
    if note is None:
        return caller
    process = Process(note.pid, None, safe_text(note.comm, MAX_COMM))
    return replace(caller, user=names.name(owner.uid), process=process)


def _by_cgroup(owner: SocketOwner, cgroup: Cgroup | None, why: str) -> Caller:
    """Without a unit or container the identity is of its own kind (origin `pid-unknown`, with the cgroup's id
    where that says anything): it equals no identity of a process that was seen, so it can use nobody's
    tokens."""
    if cgroup is not None and cgroup.path is not None:
        membership = path_membership(cgroup.path)
        if membership.unit or membership.container:
            return Caller(identity_of(owner, membership), why_unresolved=why)
    origin = PID_UNKNOWN
    if cgroup is not None and not cgroup.is_root:
        origin += f"/{cgroup.id}"
    return Caller(Identity(owner.uid, origin=origin), why_unresolved=why)
