from __future__ import annotations

from imds_proxy.callers.procfs import Stat
from imds_proxy.callers.profile import ProcessFacts
from imds_proxy.callers.recent import RecentProcesses, SeenProcess, key_of
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.policy.caller import Caller, Identity

FACTS = ProcessFacts(Stat(b"x", 1, 1), None, b"", b"")


def _seen(pid: int, descriptor: int = 3) -> SeenProcess:
    return SeenProcess(pid, descriptor, FACTS, Caller(Identity(0)))


def test_the_latest_caller_comes_first_and_each_process_once() -> None:
    recent = RecentProcesses()
    for process in (_seen(1), _seen(2), _seen(1, descriptor=9)):
        recent.remember((0, 5), process)
    assert recent.of((0, 5)) == (_seen(1, descriptor=9), _seen(2))


def test_processes_of_another_uid_or_cgroup_are_not_offered() -> None:
    recent = RecentProcesses()
    recent.remember(key_of(SocketOwner(0, 1, 5)), _seen(1))
    assert recent.of((0, 6)) == ()
    assert recent.of((1, 5)) == ()
    assert recent.of((0, None)) == ()


def test_the_memory_is_bounded() -> None:
    recent = RecentProcesses()
    for pid in range(100):
        recent.remember((0, 0), _seen(pid))
    assert [process.pid for process in recent.of((0, 0))] == [99, 98, 97, 96, 95, 94, 93, 92]
    for uid in range(1, 300):
        recent.remember((uid, 0), _seen(uid))
    assert recent.of((0, 0)) == ()
    assert recent.of((299, 0)) != ()
