"""Many callers, half of them short-lived, in a pid namespace whose pids come round; and their names as found.

A program: `swarm.py procfs|v1|ebpf SHORT LONG`. Prints a list, one object for each connection.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from imds_proxy.callers import resolver
from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.connects import note_connects
from imds_proxy.callers.procfs import ProcessView
from imds_proxy.callers.resolver import Resolver
from imds_proxy.callers.sockdiag import SockDiag, SocketOwner
from imds_proxy.policy.caller import Caller
from imds_proxy.server.attribution import BoundedAttribution, look_before_they_leave
from imds_proxy.server.eventloop import run_loop
from named_call import NamedCall

USERS = (5001, 5002, 5003, 5004, 5005)
LIBC = ctypes.CDLL(None, use_errno=True)
NEW_PID, NEW_MOUNT = 0x20000000, 0x00020000
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
RECORD = struct.Struct("=iii")  # number, pid as the process itself sees it, uid
AGAIN = 200  # pids begin here again, and again
LONG_LIVED = 10
# Seconds between new processes, and between connections of one that lasts: 170 connections a second in all.
# To look at a new process takes most of a millisecond. At 400 of them a second, on two slow processors that
# also make them, one in fifteen had ended by then. The kernel's note of a connect waits for nobody.
PACE, PACE_WITH_NOTES = 0.012, 0.004


class V1Diag(SockDiag):
    """What the kernel says on a v1 host: each socket's v2 cgroup is the root."""

    def owner(self, *ends: Any) -> SocketOwner | None:
        found = super().owner(*ends)
        return None if found is None else SocketOwner(found.uid, found.inode, 1)


class V1View(ProcessView):
    """What /proc/PID/cgroup says there: no line of v2."""

    def cgroup(self) -> bytes:
        return self._without_v2(super().cgroup())

    def reread(self) -> Any:
        found = super().reread()
        return None if found is None else (*found[:3], self._without_v2(found[3]))

    def _without_v2(self, text: bytes) -> bytes:
        return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"0::"))


def resolver_of(backend: str) -> Resolver:
    if backend == "ebpf":
        tree = CgroupTree.find()
        return Resolver(tree=tree, notes=note_connects(tree.mount))
    if backend == "v1":
        vars(resolver)["ProcessView"] = V1View  # in this process only
        return Resolver(diag=V1Diag(), tree=CgroupTree(None))
    return Resolver()


def serve(backend: str, total: int, port_pipe: int, result_pipe: int) -> None:
    """The server's process: until all connections are seen."""
    look_before_they_leave()
    found: dict[int, dict[str, Any]] = {}

    def known(data: bytes, caller: Caller) -> None:
        number, inner, uid = RECORD.unpack(data)
        found[number] = {
            "inner": inner,
            "true_uid": uid,
            "named": caller.why_unresolved is None,
            "uid": caller.identity.uid,
            "pid": caller.process.pid if caller.process else None,
            "comm": caller.process.comm if caller.process else None,
            "why": caller.why_unresolved,
        }

    async def main() -> None:
        attribution = BoundedAttribution(resolver_of(backend))
        server = await asyncio.get_running_loop().create_server(
            lambda: NamedCall(attribution, lambda data: len(data) == RECORD.size, known),
            "127.0.0.1",
            0,
            backlog=1024,
        )
        os.write(port_pipe, struct.pack("=i", server.sockets[0].getsockname()[1]))
        end = time.monotonic() + 150
        while len(found) < total and time.monotonic() < end:
            await asyncio.sleep(0.05)
        server.close()
        attribution.close()

    run_loop(main())
    with os.fdopen(result_pipe, "w") as out:
        json.dump(found, out)


def come_round() -> None:
    """Gives this pid namespace's numbers again and again."""
    path = "/proc/sys/kernel/ns_last_pid"
    while True:
        Path(path).write_text(str(AGAIN))
        time.sleep(0.05)


def own_proc() -> None:
    assert LIBC.unshare(NEW_MOUNT) == 0
    assert LIBC.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
    assert LIBC.mount(b"proc", b"/proc", b"proc", 0, None) == 0


def call(port: int, number: int, uid: int, wait: bool) -> socket.socket:
    wire = socket.socket()
    wire.connect(("127.0.0.1", port))
    wire.sendall(RECORD.pack(number, os.getpid(), uid))
    if wait:
        wire.recv(1)
        wire.close()
    return wire


def end_with_parent() -> None:
    """So that nothing goes on for ever when whoever waits for the results is gone."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def become(uid: int, name: str) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    LIBC.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def main() -> None:
    end_with_parent()
    backend, short, long = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    port_read, port_write = os.pipe()
    result_read, result_write = os.pipe()
    # With procfs the server looks from inside the namespace, with eBPF from outside: its pids are the host's.
    outside = backend == "ebpf"
    if not outside:
        assert LIBC.unshare(NEW_PID) == 0
    server = os.fork()
    if server == 0:
        end_with_parent()
        if not outside:
            own_proc()
            threading.Thread(target=come_round, daemon=True).start()
        serve(backend, short + long, port_write, result_write)
        os._exit(0)
    os.close(result_write)  # the server alone holds it: its end is the end of the results
    port = struct.unpack("=i", os.read(port_read, 4))[0]
    first = 0
    if outside:
        assert LIBC.unshare(NEW_PID) == 0
        first = os.fork()
        if first == 0:  # the first process of the namespace
            end_with_parent()
            own_proc()
            come_round()
    pace = PACE_WITH_NOTES if backend == "ebpf" else PACE
    truth: dict[int, tuple[int, str, str]] = {}
    lasting = []
    for number in range(LONG_LIVED):
        uid, name = USERS[number % 5], f"lasting-{number}"
        each = long // LONG_LIVED
        numbers = range(short + number * each, short + (number + 1) * each)
        pid = os.fork()
        if pid == 0:
            become(uid, name)
            for one in numbers:
                call(port, one, uid, wait=True)
                time.sleep(LONG_LIVED * pace)
            os._exit(0)
        lasting.append(pid)
        truth.update(dict.fromkeys(numbers, (pid, name, "long")))
    chance = random.Random(1)
    began = time.monotonic()
    for number in range(short):
        uid, name = USERS[number % 5], f"short-{number}"
        life = chance.random() * 0.005
        pid = os.fork()
        if pid == 0:
            become(uid, name)
            wire = call(port, number, uid, wait=False)
            time.sleep(life)
            os._exit(wire.fileno() < 0)  # it is closed by the exit, not before
        truth[number] = (pid, name, "short")
        time.sleep(max(0.0, began + number * pace - time.monotonic()))
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    with os.fdopen(result_read) as results:
        found = json.load(results)
    if first:
        os.kill(first, signal.SIGKILL)
    for number, one in found.items():
        one["outer"], one["true_comm"], one["kind"] = truth[int(number)]
    json.dump(list(found.values()), sys.stdout)


main()
