"""A caller whose process was not looked at: the kernel's own facts, and nothing that a process says.

Knows nothing of why: its process has gone, hides, or there was no time.
"""

from __future__ import annotations

from dataclasses import replace

from imds_proxy.callers.cgroupfs import CgroupTree
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
    owner: SocketOwner, note: ConnectNote | None, tree: CgroupTree, names: UserNames, why: str
) -> Caller:
    """Of a live socket: its uid is a fact, and on v2 hosts so is its cgroup. With a note of the connect also
    the pid, and what the process called itself."""
    caller = _by_cgroup(owner, tree, why)
    if note is None:
        return caller
    process = Process(note.pid, None, safe_text(note.comm, MAX_COMM))
    return replace(caller, user=names.name(owner.uid), process=process)


def _by_cgroup(owner: SocketOwner, tree: CgroupTree, why: str) -> Caller:
    """Without a unit or container the identity is of its own kind (origin `pid-unknown`, with the cgroup's id
    where that says anything): it equals no identity of a process that was seen, so it can use nobody's
    tokens."""
    path = tree.path_of(owner.cgroup_id) if owner.cgroup_id is not None else None
    membership = path_membership(path) if path is not None else None
    if membership is not None and (membership.unit or membership.container):
        return Caller(identity_of(owner, membership), why_unresolved=why)
    origin = PID_UNKNOWN
    if owner.cgroup_id is not None and owner.cgroup_id != tree.root_id:
        origin += f"/{owner.cgroup_id}"
    return Caller(Identity(owner.uid, origin=origin), why_unresolved=why)
