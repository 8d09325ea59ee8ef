from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.cgroups import Membership
from imds_proxy.callers.hostfiles import HostFiles
from imds_proxy.callers.procfs import ProcessView, Stat
from imds_proxy.callers.profile import (
    ProcessFacts,
    Surroundings,
    build_caller,
    identity_of,
    made_the_socket,
    read_facts,
)
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.callers.usernames import UserNames
from imds_proxy.policy.caller import Caller, Identity

NO_TREE = CgroupTree(None)


def _caller(pid: int, owner: SocketOwner, watched: tuple[str, ...] = ()) -> Caller:
    with ProcessView(pid) as view:
        found = read_facts(view)
        assert found is not None
        return build_caller(
            view, *found, owner, Surroundings.of_host(UserNames(), HostFiles(watched), "/proc")
        )


def test_a_profile_names_process_script_user_and_ancestors(client: Any) -> None:
    client.run("pass")
    caller = _caller(client.pid, SocketOwner(0, 1, None))
    assert caller.process is not None
    assert caller.process.pid == client.pid
    assert caller.process.exe is not None
    assert caller.script == "-c"
    assert caller.user == "root"
    assert caller.parents[0].pid == os.getpid()
    assert not caller.is_self
    assert caller.why_unresolved is None


def test_the_uid_is_the_sockets_and_not_the_processs() -> None:
    assert _caller(os.getpid(), SocketOwner(4_000_000_000, 1, None)).identity.uid == 4_000_000_000


def test_the_proxys_own_process_is_marked() -> None:
    assert _caller(os.getpid(), SocketOwner(0, 1, None)).is_self


def test_facts_of_a_process_that_ended_are_none(client: Any) -> None:
    with ProcessView(client.pid) as view:
        client.end()
        assert read_facts(view) is None


def test_facts_do_not_keep_a_command_line_that_may_hold_secrets(new_client: Callable[..., Any]) -> None:
    client = new_client(["--password=hunter2"])
    client.run("pass")
    with ProcessView(client.pid) as view:
        found = read_facts(view)
        assert found is not None
        assert b"hunter2" in found[1]
        assert "hunter2" not in repr(found[0])
        client.run("ctypes.CDLL(None).prctl(15, b'renamed')")
        again = read_facts(view)
        assert again is not None
        assert again[0] != found[0]
    assert "hunter2" not in repr(_caller(client.pid, SocketOwner(0, 1, None)))


def test_names_that_a_caller_chose_are_shown_on_one_line(client: Any) -> None:
    client.run("open('/proc/self/comm', 'wb').write(b'a\\x1b[2J\\n')")
    caller = _caller(client.pid, SocketOwner(0, 1, None))
    assert caller.process is not None
    assert caller.process.comm == "a\\x1b[2J\\x0a"
    assert all(word.isprintable() for word in caller.process.cmdline)
    assert identity_of(SocketOwner(0, 1, None), Membership(unit="a\nb.service")) == Identity(
        0, "a\\x0ab.service"
    )


def test_a_holder_from_another_cgroup_did_not_make_the_socket() -> None:
    tree = CgroupTree.find()
    facts = ProcessFacts(Stat(b"x", 1, 1), None, b"", b"0::/\n")
    if tree.root_id is not None:
        assert made_the_socket(facts, SocketOwner(0, 1, tree.root_id), tree)
        assert not made_the_socket(facts, SocketOwner(0, 1, tree.root_id + 1), tree)
    tree.close()


def test_where_the_cgroup_cannot_be_compared_every_holder_passes() -> None:
    v1 = ProcessFacts(Stat(b"x", 1, 1), None, b"", b"1:cpu:/\n")
    v2 = ProcessFacts(Stat(b"x", 1, 1), None, b"", b"0::/a\n")
    assert made_the_socket(v1, SocketOwner(0, 1, 99), NO_TREE)
    assert made_the_socket(v2, SocketOwner(0, 1, None), NO_TREE)
    assert made_the_socket(v2, SocketOwner(0, 1, 99), NO_TREE)
