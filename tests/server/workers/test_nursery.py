"""Where workers come from."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from functools import partial

from crewed import is_alive, until

# In a process of its own, with one thread, as the daemon has when it begins.
SETTING = """
import os, signal, socket, sys, time
from imds_proxy.server.workers.nursery import Nursery
secret = os.open("/etc/passwd", os.O_RDONLY)
listening = socket.create_server(("127.0.0.1", 0))

def work(place, wire, sockets):
    held = sorted(os.listdir("/proc/self/fd"), key=int)
    words = [str(place), str(os.getpid()), str(len(held)), str(sockets[0].getsockname()[1])]
    wire.send(" ".join(words).encode())
    wire.recv(10)

nursery = Nursery([listening], work)
"""


def told(script: str) -> list[str]:
    words = [sys.executable, "-c", SETTING + textwrap.dedent(script)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def has_ended(pid: int) -> bool:
    return not is_alive(pid)


def test_a_worker_has_its_place_its_channel_and_the_listening_sockets_only() -> None:
    place, _, held, port, ours = told(
        """
        wire = nursery.bear(5)
        print(wire.recv(100).decode(), listening.getsockname()[1])
        """
    )
    assert (place, port) == ("5", ours)
    assert int(held) == 3 + 1 + 1 + 1  # standard ones, the address, its channel, the directory it reads


def test_a_worker_that_returns_is_gone_and_its_channel_ends() -> None:
    assert told(
        """
        wire = nursery.bear(0)
        wire.recv(100)
        wire.send(b".")
        print(len(wire.recv(100)))
        """
    ) == ["0"]


def test_without_a_nursery_there_are_no_workers_and_that_is_said() -> None:
    assert told(
        """
        wire = nursery.bear(0)
        wire.recv(100)
        os.kill(nursery.pid, signal.SIGKILL)
        print(len(wire.recv(100)))
        try:
            while True:
                nursery.bear(1).close()
                time.sleep(0.01)
        except OSError:
            print("no more")
        """
    ) == ["0", "no", "more"]


def test_all_end_when_it_is_closed_and_when_the_daemon_is_killed() -> None:
    for end in ("nursery.close()", "os.kill(os.getpid(), signal.SIGKILL)"):
        script = (
            "wire = nursery.bear(0)\nprint(wire.recv(100).decode().split()[1], nursery.pid, flush=True)\n"
        )
        words = [sys.executable, "-c", SETTING + script + end]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=20)
        family = [int(one) for one in done.stdout.split()]
        assert len(family) == 2
        for pid in family:
            until(partial(has_ended, pid), 2)
    assert os.getpid() not in family
