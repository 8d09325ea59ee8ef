"""Pods as a node has them: processes in network namespaces of their own, on a bridge. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from elsewhere import Elsewhere, elsewhere
from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.demo.processes import ending
from places import cgroup, within

# Each line on stdin is Python to run; when it has run, a line with repr(result) comes back.
_OBEDIENT = """
import encodings.idna, os, signal, socket, subprocess, sys, time
result = None
print("ready", flush=True)
for line in sys.stdin:
    result = None
    exec(line)
    print(repr(result), flush=True)
"""


@dataclass
class Pod:
    """A process that does as it is told, a line of Python at a time, at `address` behind the bridge."""

    process: subprocess.Popen[str]
    address: str
    uid: str  # as in the cgroup's name

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, statement: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(statement + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, statement: str) -> str:
        self.tell(statement)
        return self.answer()

    def sh(self, line: str) -> None:
        assert self.run(f"result = subprocess.run({line.split()!r}).returncode") == "0"

    def end(self) -> None:
        """Ends it, and with it its network namespace."""
        self.process.kill()
        self.process.wait(10)


@dataclass
class Node:
    """`place` is its network namespace; it has `address` on the bridge br0. Pods are told apart by a number
    from 2 on, which ends their address."""

    place: Elsewhere
    net: str
    stack: ExitStack = field(default_factory=ExitStack)
    made: int = 0

    @property
    def address(self) -> str:
        return f"{self.net}.1"

    def pod(self, number: int, unit: Path | None = None, user: int = 0) -> Pod:
        words = within(["unshare", "--net", sys.executable, "-c", _OBEDIENT], 0, unit)
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.stack.enter_context(ending(process))
        pod = Pod(process, f"{self.net}.{number}", "")
        self.stack.callback(_close, process)
        assert pod.answer() == "ready"
        self.made += 1
        outside = f"veth{self.made}"
        self.place.sh(f"ip link add {outside} type veth peer name eth0 netns {process.pid}")
        self.place.sh(f"ip link set {outside} master br0 up")
        pod.sh(f"ip addr add {pod.address}/24 dev eth0")
        pod.sh("ip link set eth0 up")
        pod.sh("ip link set lo up")
        pod.sh(f"ip route add default via {self.address}")
        if user:
            pod.run(f"os.setgroups([]); os.setgid({user}); os.setuid({user})")
        return pod

    def spoof(self, thief: Pod, address: str) -> None:
        """The thief has the address too, and the node's packets for it go to the thief."""
        thief.sh(f"ip addr add {address}/32 dev eth0")
        link = thief.run("result = subprocess.check_output(['ip', '-o', 'link', 'show', 'eth0'], text=True)")
        mac = link.partition("link/ether ")[2].split()[0]
        self.place.sh(f"ip neigh replace {address} lladdr {mac} dev br0 nud permanent")

    def unspoof(self, thief: Pod, address: str) -> None:
        """Undoes it."""
        thief.sh(f"ip addr del {address}/32 dev eth0")
        # The link of a pod that has ended may have taken it along.
        words = f"ip neigh del {address} dev br0".split()
        self.place.call(subprocess.run, words, stderr=subprocess.DEVNULL)

    def kubernetes_pod(self, number: int, uid: str, container: str, user: int = 0) -> Pod:
        """In a cgroup as the kubelet makes one."""
        name = f"imds-test-{os.getpid()}/kubepods/pod{uid}/{container}"
        steps = name.split("/")
        for depth in range(1, len(steps) + 1):
            step = "/".join(steps[:depth])
            if not (_hierarchy() / step).is_dir():
                self.stack.enter_context(cgroup(step))
        pod = self.pod(number, _hierarchy() / name, user)
        pod.uid = uid
        return pod


def _hierarchy() -> Path:
    mount = CgroupTree.find().mount
    assert mount is not None, "no cgroup v2 hierarchy is mounted"
    return Path(mount)


def _close(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


@contextmanager
def node() -> Iterator[Node]:
    """A node whose addresses no other test on this machine has at this time."""
    number = os.getpid()
    with elsewhere() as place, ExitStack() as stack:
        made = Node(place, f"10.{128 + (number >> 8) % 64}.{number & 255}", stack)
        place.sh("ip link add br0 type bridge")
        place.sh(f"ip addr add {made.address}/24 dev br0")
        place.sh("ip link set br0 up")
        yield made
