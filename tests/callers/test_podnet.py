"""Whose a source address is: of one network namespace alone, and from its beginning."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imds_proxy.callers.podnet import PodNetworks
from podlab import Node, Pod, node

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def lab() -> Iterator[Node]:
    with node() as made:
        yield made


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def networks(lab: Node, clock: Clock) -> Iterator[PodNetworks]:
    found = lab.place.call(PodNetworks, "/proc", clock)
    yield found
    found.close()


def owner(networks: PodNetworks, clock: Clock, address: str) -> int | None:
    """The inode of the namespace that has it, by a new look."""
    clock.now += 1
    networks.look(networks.now())
    network = networks.owner(socket.inet_aton(address))
    return network.inode if network is not None else None


def inode(pod: Pod) -> int:
    return Path(f"/proc/{pod.pid}/ns/net").stat().st_ino


def test_each_address_leads_to_the_namespace_that_has_it(
    lab: Node, networks: PodNetworks, clock: Clock
) -> None:
    one, other = lab.pod(2), lab.pod(3)
    assert owner(networks, clock, one.address) == inode(one)
    assert owner(networks, clock, other.address) == inode(other)
    assert owner(networks, clock, f"{lab.net}.4") is None


def test_our_own_address_and_loopback_are_nobodys(lab: Node, networks: PodNetworks, clock: Clock) -> None:
    lab.pod(2)
    assert owner(networks, clock, lab.address) is None
    assert owner(networks, clock, "127.0.0.1") is None


def test_28_an_address_that_two_have_is_nobodys(lab: Node, networks: PodNetworks, clock: Clock) -> None:
    one, other = lab.pod(2), lab.pod(3)
    other.sh(f"ip addr add {one.address}/32 dev eth0")
    assert owner(networks, clock, one.address) is None
    assert owner(networks, clock, other.address) == inode(other)
    other.sh(f"ip addr del {one.address}/32 dev eth0")
    assert owner(networks, clock, one.address) == inode(one)


def test_28_a_dead_pods_address_that_another_takes_later_is_nobodys(
    lab: Node, networks: PodNetworks, clock: Clock
) -> None:
    one, other = lab.pod(2), lab.pod(3)
    assert owner(networks, clock, one.address) == inode(one)
    clock.now += 10
    one.end()
    other.sh(f"ip addr add {one.address}/32 dev eth0")
    assert owner(networks, clock, one.address) is None
    other.sh(f"ip addr del {one.address}/32 dev eth0")
    heir = lab.pod(2)
    assert owner(networks, clock, heir.address) == inode(heir)


def test_a_pod_that_is_still_being_made_gets_its_address_in_time(
    lab: Node, networks: PodNetworks, clock: Clock
) -> None:
    pod = lab.pod(2)
    pod.sh(f"ip addr del {pod.address}/24 dev eth0")
    assert owner(networks, clock, pod.address) is None
    pod.sh(f"ip addr add {pod.address}/24 dev eth0")
    assert owner(networks, clock, pod.address) == inode(pod)


def test_28_a_namespace_that_a_user_made_takes_no_address_from_a_pod(
    lab: Node, networks: PodNetworks, clock: Clock
) -> None:
    pod = lab.pod(2)
    hold = f"ip link set lo up; ip addr add {pod.address}/32 dev lo; echo ready; read x"
    words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "unshare",
        "-Urn",
        "sh",
        "-c",
        hold,
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forger:
        assert forger.stdout is not None
        assert forger.stdout.readline() == "ready\n"
        assert owner(networks, clock, pod.address) == inode(pod)
        pod.end()
        clock.now += 10
        assert forger.stdin is not None
        forger.stdin.close()


def test_a_look_holds_for_half_a_second_and_one_for_all_who_wait(
    lab: Node, networks: PodNetworks, clock: Clock
) -> None:
    assert not networks.fresh
    wanted = networks.now()
    networks.look(wanted)
    assert networks.fresh
    pod = lab.pod(2)
    networks.look(wanted)  # there has been one since
    assert networks.owner(socket.inet_aton(pod.address)) is None
    networks.tend()
    assert networks.owner(socket.inet_aton(pod.address)) is None
    clock.now += 0.6
    assert not networks.fresh
    networks.tend()
    assert networks.owner(socket.inet_aton(pod.address)) is not None


def test_what_is_dead_is_let_go_of(lab: Node, networks: PodNetworks, clock: Clock) -> None:
    pod = lab.pod(2)
    assert owner(networks, clock, pod.address) == inode(pod)
    pod.end()
    assert owner(networks, clock, pod.address) is None
    for _ in range(500):
        if "veth1" not in lab.place.sh("ip -o link"):
            break
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert "veth1" not in lab.place.sh("ip -o link")


def test_once_closed_it_knows_none(lab: Node, networks: PodNetworks, clock: Clock) -> None:
    pod = lab.pod(2)
    networks.close()
    assert owner(networks, clock, pod.address) is None


def test_without_the_right_to_enter_it_is_an_error() -> None:
    code = "from imds_proxy.callers.podnet import PodNetworks; PodNetworks()"
    words = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert "Operation not permitted" in done.stderr
