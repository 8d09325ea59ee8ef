"""Another network namespace, entered by a thread that leaves nothing of it behind."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imds_proxy.bpf.kernel import netns_cookie
from imds_proxy.callers.netns import NetworkNamespace, within
from imds_proxy.callers.redirect import endpoint_of
from podlab import Node, node

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def lab() -> Iterator[Node]:
    with node() as made:
        yield made


def ours() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_it_is_asked_from_within_and_no_thread_of_ours_is_left_there(lab: Node) -> None:
    pod = lab.pod(2)
    threads, here = threading.active_count(), ours()
    network = NetworkNamespace(pod.pid)
    try:
        assert network.inode == Path(f"/proc/{pod.pid}/ns/net").stat().st_ino != here
        assert network.host_owned
        assert network.cookie not in (None, netns_cookie())
        assert network.addresses() == {socket.inet_aton(pod.address)}
        pod.run("server = socket.create_server(('127.0.0.1', 0))")
        ends = eval(
            pod.run(
                "wire = socket.create_connection(server.getsockname()); "
                "result = (wire.getsockname(), wire.getpeername(), os.fstat(wire.fileno()).st_ino)"
            )
        )
        local, remote = endpoint_of(ends[0]), endpoint_of(ends[1])
        assert local is not None
        assert remote is not None
        owner = network.diag.owner(local, remote)
        assert owner is not None
        assert (owner.uid, owner.inode) == (0, ends[2])
    finally:
        network.close()
    assert threading.active_count() == threads
    tasks = Path("/proc/self/task").iterdir()
    inside = [task for task in tasks if (task / "ns/net").stat().st_ino == network.inode]
    assert inside == []
    assert ours() == here


def test_what_fails_within_is_raised_here(lab: Node) -> None:
    def fail() -> int:
        raise OSError("within")

    handle = os.open(f"/proc/{lab.pod(2).pid}/ns/net", os.O_RDONLY)
    try:
        assert within(handle, lambda: 7) == 7
        with pytest.raises(OSError, match="within"):
            within(handle, fail)
    finally:
        os.close(handle)
    with Path(os.devnull).open() as nothing, pytest.raises(OSError, match="Invalid argument"):
        within(nothing.fileno(), lambda: 7)


def test_once_closed_it_is_kept_alive_no_longer(lab: Node) -> None:
    pod = lab.pod(2)
    network = NetworkNamespace(pod.pid)
    pod.end()
    assert network.addresses()  # it lives as long as it is open
    network.close()
    for _ in range(500):
        if "veth1" not in lab.place.sh("ip -o link"):
            return
        threading.Event().wait(0.01)
    pytest.fail("the namespace outlives its last holder")


def test_one_that_a_user_made_for_himself_is_not_the_hosts() -> None:
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Urn"]
    with subprocess.Popen(
        [*words, "sh", "-c", "echo ready; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        network = NetworkNamespace(holder.pid)
        assert not network.host_owned
        network.close()
        assert holder.stdin is not None
        holder.stdin.close()


def test_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        NetworkNamespace(2**22 + 1)
