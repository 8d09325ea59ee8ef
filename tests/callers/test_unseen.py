"""A caller whose process was not looked at has the kernel's facts, and passes for nobody who was."""

from __future__ import annotations

import os

from imds_proxy.callers.cgroupfs import Cgroup
from imds_proxy.callers.connects import ConnectNote
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.callers.unseen import PID_UNKNOWN, unseen_caller
from imds_proxy.callers.usernames import UserNames
from imds_proxy.policy.caller import Identity

NOTE = ConnectNote(thread=8, pid=7, uid=os.geteuid(), gid=0, cgroup_id=99, comm=b"cu\x1b[rl", connected=1.0)


def of_id(number: int) -> Cgroup:
    """One whose path cannot be told."""
    return Cgroup(number, None, is_root=False)


def test_a_uid_alone_is_an_identity_of_its_own_kind() -> None:
    caller = unseen_caller(SocketOwner(5001, 1, None), None, None, UserNames(), "why")
    assert caller.identity == Identity(5001, origin=PID_UNKNOWN)
    assert caller.identity != Identity(5001)
    assert not caller.identity.resolved
    assert (caller.process, caller.why_unresolved) == (None, "why")


def test_another_cgroup_is_another_identity() -> None:
    one, other = (
        unseen_caller(SocketOwner(5001, 1, number), of_id(number), None, UserNames(), "why").identity
        for number in (98, 99)
    )
    assert one != other


def test_the_cgroup_of_everybody_says_nothing() -> None:
    root = Cgroup(1, "/", is_root=True)
    caller = unseen_caller(SocketOwner(5001, 1, 1), root, None, UserNames(), "why")
    assert caller.identity == Identity(5001, origin=PID_UNKNOWN)


def test_a_units_cgroup_is_its_unit() -> None:
    cgroup = Cgroup(99, "/system.slice/billing.service", is_root=False)
    caller = unseen_caller(SocketOwner(5001, 1, 99), cgroup, None, UserNames(), "why")
    assert caller.identity == Identity(5001, unit="billing.service")
    assert caller.why_unresolved == "why"


def test_a_note_adds_pid_and_name_and_no_program() -> None:
    caller = unseen_caller(SocketOwner(NOTE.uid, 0, 99), of_id(99), NOTE, UserNames(), "why")
    assert caller.process is not None
    assert (caller.process.pid, caller.process.exe) == (7, None)
    assert (caller.process.comm or "\x1b").isprintable()
    assert caller.program.exe == frozenset()
    assert not caller.identity.resolved
