"""ATTACKS row 28 against a node agent: pods behind a bridge, redirected, named by their own namespaces."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.demo.processes import announced, ending
from kube_api import KubeApi, kube_api, pod_object
from podlab import Node, Pod, node
from proxy import Proxy, running_proxy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(CgroupTree.find().mount is None, reason="no cgroup v2 hierarchy is mounted"),
]

SERVICE = "100.100.100.200"
UIDS = {name: f"{number}2345678-1234-1234-1234-123456789abc" for number, name in enumerate("abcd", 1)}
PATHS = {"a": "/latest/meta-data/instance-id", "b": "/latest/meta-data/mac"}
# Each pod may read one item: the answer tells whom the daemon took the caller for.
RULES = [
    {"name": name, "caller": {"pod": {"namespace": "team", "name": f"pod-{name}"}}, "paths": [path[8:]]}
    for name, path in PATHS.items()
]

# Statuses of one request after the other, each on a connection of its own from the next port of a range.
ASK = f"""
def ask(path, ports, host={SERVICE!r}, source=''):
    found = []
    for port in ports:
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wire.settimeout(10)
        wire.bind((source, port))
        wire.connect((host, 80))
        wire.sendall(f"GET {{path}} HTTP/1.1\\r\\nHost: {SERVICE}\\r\\n".encode())
        wire.sendall(b"Connection: close\\r\\n\\r\\n")
        answer = b""
        while piece := wire.recv(65536):
            answer += piece
        wire.close()
        found.append(int(answer.split()[1]))
    return found
"""


@dataclass
class Cluster:
    node: Node
    api: KubeApi
    agent: Proxy

    def pod(self, name: str, number: int) -> Pod:
        """Ready to ask, and known to the API server."""
        made = self.node.kubernetes_pod(number, UIDS[name], name * 64)
        made.run(f"exec({ASK!r})")
        self.api.put(pod_object(f"pod-{name}", made.uid, made.address, namespace="team"))
        return made

    def named(self, pod: Pod, name: str) -> None:
        """Waits until the pod is known by its name."""
        end = time.monotonic() + 20
        while statuses(pod, PATHS[name], range(1)) != [200]:
            assert time.monotonic() < end, self.agent.log_path.read_text()[-3000:]


def statuses(pod: Pod, path: str, ports: range, **more: Any) -> list[int]:
    words = "".join(f", {key}={value!r}" for key, value in more.items())
    said = pod.run(f"result = ask({path!r}, {ports!r}{words})")
    assert said.startswith("["), said
    return [int(one) for one in said.strip("[]").split(",")]


@pytest.fixture(scope="module", params=["procfs", "ebpf"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with made_cluster(request.param, tmp_path_factory.mktemp("node")) as made:
        yield made


@contextmanager
def made_cluster(attribution: str, directory: Path) -> Iterator[Cluster]:
    with node() as place:
        words = [sys.executable, "-m", "imds_proxy", "emulate", "--listen", "127.0.0.1:0"]
        service = place.place.call(
            subprocess.Popen, words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        listening = place.place.call(socket.create_server, (place.address, 0))
        with ending(service), kube_api(directory / "account", listening) as api:
            host, _, port = announced(service).rpartition(":")
            settings = {
                "attribution": attribution,
                "intercept": {"method": "nftables", "forwarded": ["br0"]},
                "pods": {
                    "networks": True,
                    "names": "api",
                    "api": f"{place.address}:{api.port}",
                    "node": "node-1",
                    "credentials": str(directory / "account"),
                },
                "policy": {"enforcement": "enforce", "default": "deny", "rules": RULES},
            }
            place.place.sh(f"ip route add {SERVICE} dev br0")
            # The daemon starts in the node's namespace, as all that its thread starts.
            agent = running_proxy((host, int(port)), settings, options=["--intercept"])
            with _entered(place, agent) as daemon:
                yield Cluster(place, api, daemon)


@contextmanager
def _entered(place: Node, manager: Any) -> Iterator[Proxy]:
    daemon = place.place.call(manager.__enter__)
    try:
        yield daemon
    finally:
        place.place.call(manager.__exit__, None, None, None)


def test_28_two_pods_calling_at_once_from_one_source_port_are_each_named_1000_of_1000(
    cluster: Cluster,
) -> None:
    pods = {"a": cluster.pod("a", 2), "b": cluster.pod("b", 3)}
    for name, pod in pods.items():
        cluster.named(pod, name)
    ports = range(20_000, 20_500)
    for path, expected in ((PATHS["a"], {"a": 200, "b": 403}), (PATHS["b"], {"a": 403, "b": 200})):
        for pod in pods.values():
            pod.tell(f"result = ask({path!r}, {ports!r})")
        for name, pod in pods.items():
            assert pod.answer() == str([expected[name]] * 500)
        ports = range(21_000, 21_500)
    for pod in pods.values():
        pod.end()
    for name in "ab":
        cluster.api.delete(UIDS[name])


def test_28_a_spoofed_address_gets_nothing_while_its_pod_lives_nor_after(cluster: Cluster) -> None:
    victim, thief = cluster.pod("a", 4), cluster.pod("c", 5)
    cluster.named(victim, "a")
    assert set(statuses(thief, PATHS["a"], range(1))) == {403}
    cluster.node.spoof(thief, victim.address)
    for path in PATHS.values():
        assert set(statuses(thief, path, range(22_000, 22_020), source=victim.address)) == {403}
    victim.end()
    cluster.api.delete(victim.uid)
    for path in PATHS.values():
        assert set(statuses(thief, path, range(23_000, 23_020), source=victim.address)) == {403}
    cluster.node.unspoof(thief, victim.address)
    # The address is given to another pod, which is not the dead one.
    heir = cluster.pod("b", 4)
    cluster.named(heir, "b")
    assert set(statuses(heir, PATHS["a"], range(1))) == {403}
    heir.end()
    thief.end()
