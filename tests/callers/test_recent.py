from __future__ import annotations

import os
import socket
import time
from typing import Any

from imds_proxy.callers.procfs import ProcessView, Stat
from imds_proxy.callers.profile import ProcessFacts, read_facts
from imds_proxy.callers.recent import Habits, RecentProcesses, SeenProcess, key_of
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.policy.caller import Caller, Identity

FACTS = ProcessFacts(Stat(b"x", 1, 1), None, b"", b"")


class Numbered(ProcessView):
    """A view of this process under another number."""

    def __init__(self, pid: int) -> None:
        super().__init__(os.getpid())
        self.pid = pid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbered) and other.pid == self.pid

    def __hash__(self) -> int:
        return self.pid


def _seen(pid: int, descriptor: int = 3) -> SeenProcess:
    return SeenProcess(Numbered(pid), FACTS, Caller(Identity(0)), Habits(descriptor))


def test_descriptors_are_tried_in_the_order_in_which_they_come_again() -> None:
    habits = Habits(3)
    assert list(habits.likely()) == [3]
    for descriptor in (4, 5, 6, 3, 4):
        habits.held(descriptor)
    assert list(habits.likely()) == [5, 4, 6, 3]  # after 4 came 5
    habits.held(4)
    assert next(habits.likely()) == 4  # one after another
    for descriptor in range(100):
        habits.held(descriptor)
    assert len(list(habits.likely())) == 24


def test_a_process_is_the_same_until_it_runs_another_program_or_ends(client: Any) -> None:
    client.run("pass")
    view = ProcessView(client.pid)
    view.keep()
    found = read_facts(view)
    assert found is not None
    process = SeenProcess(view, found[0], Caller(Identity(0)), Habits(3))
    assert process.is_the_same()
    client.tell("os.execv(sys.executable, [sys.executable, '-c', 'import signal; signal.pause()'])")
    end = time.monotonic() + 5
    while process.is_the_same():
        assert time.monotonic() < end
    client.end()
    assert not process.is_the_same()
    assert process.holding(1) is None


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
    for uid in range(1, 600):
        recent.remember((uid, 0), _seen(uid))
    assert recent.of((0, 0)) == ()
    assert [uid for uid in range(600) if recent.of((uid, 0))] == list(range(88, 600))
    recent.forget((599, 0), recent.of((599, 0))[0])
    assert recent.of((599, 0)) == ()


def test_one_list_of_a_process_tells_of_all_the_sockets_that_it_held() -> None:
    held = [socket.socket() for _ in range(40)]
    seen = _seen(1)
    inodes = [os.fstat(one.fileno()).st_ino for one in held]
    assert seen.search(inodes[7], 100_000) == held[7].fileno()
    assert [seen.holding(inode) for inode in inodes] == [one.fileno() for one in held]
    held[3].close()
    other = socket.socket()  # most often under the same descriptor
    assert seen.holding(inodes[3]) is None  # what was listed is looked at again
    assert seen.search(os.fstat(other.fileno()).st_ino, 1) is None  # too many to be listed
    for one in (*held, other):
        one.close()
    seen.view.close()


def test_noted_processes_are_remembered_in_bounds() -> None:
    recent = RecentProcesses()
    process = _seen(1)
    for number in range(512):
        recent.note(b"%d" % number, process)
    assert recent.noted(b"0") is process
    recent.note(b"512", process)
    assert recent.noted(b"0") is None
    assert recent.noted(b"512") is process
