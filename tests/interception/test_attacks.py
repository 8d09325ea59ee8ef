"""ATTACKS 28 (what reaches the redirect from pods), 30b, 31 (before the redirect), and loops."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from cloud import SERVICE, SERVICE6, Lab, Place, heard, namespace

ITEM = "/latest/meta-data/instance-id"
ROLE = "/latest/meta-data/ram/security-credentials/demo-role"
_SETTINGS: dict[str, Any] = {
    "intercept": {"method": "nftables", "forwarded": ["pods"]},
    "policy": {"enforcement": "enforce"},
}
# Two pods connect from the same port of theirs, at the same time.
_FROM_PORT = f"""
import socket, sys
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
client.bind(("", 45678))
client.settimeout(5)
client.connect(("{SERVICE}", 80))
client.sendall(b"GET {ITEM} HTTP/1.0\\r\\n\\r\\n")
print(client.recv(4096).decode().partition("\\r\\n")[0])
"""


@dataclass(frozen=True)
class Pods:
    """Network namespaces behind the bridge `pods` of the host, with 10.88.0.2 and 10.88.0.3."""

    first: Place
    second: Place


@pytest.fixture(scope="module")
def pods(lab: Lab) -> Iterator[Pods]:
    host = lab.host
    host.ip("link add name pods type bridge")
    host.ip("addr add 10.88.0.1/24 dev pods")
    host.ip("addr add fd88::1/64 dev pods nodad")
    host.ip("link set pods up")
    for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        host.run("sh", "-c", f"echo 1 > /proc/sys/net/{switch}")
    lab.cloud.ip("route add 10.88.0.0/24 via 10.99.0.2")
    lab.cloud.ip("route add fd88::/64 via fd99::2")
    with ExitStack() as stack:
        places = []
        for number in (2, 3):
            pod = stack.enter_context(namespace())
            places.append(pod)
            host.ip(f"link add pod{number} type veth peer name eth0 netns {pod.pid}")
            host.ip(f"link set pod{number} master pods up")
            pod.ip(f"addr add 10.88.0.{number}/24 dev eth0")
            pod.ip(f"addr add fd88::{number}/64 dev eth0 nodad")
            pod.ip("link set eth0 up")
            pod.ip("route add default via 10.88.0.1")
            pod.ip("route add default via fd88::1")
        yield Pods(*places)


def test_forwarded_traffic_is_redirected_on_demand_only(lab: Lab, pods: Pods) -> None:
    for forwarded, status in ([], 403), (["other", "po*"], 200), (["*"], 200), (["other"], 403):
        with lab.daemon("--intercept", settings={"intercept": {"forwarded": forwarded}}):
            for host in (SERVICE, f"[{SERVICE6}]"):
                got = heard(pods.first, f"http://{host}{ITEM}")
                assert got.status == status, (forwarded, host, got)


def test_a_pod_gets_nothing_sensitive_unless_it_is_named(lab: Lab, pods: Pods) -> None:
    with lab.daemon("--intercept", settings=_SETTINGS):
        assert heard(pods.first, f"http://{SERVICE}{ITEM}").status == 200
        refused = heard(pods.first, f"http://{SERVICE}{ROLE}")
        assert refused.status == 403
        assert "unresolved" in refused.body
        assert lab.get(ROLE).status == 200  # a process of the host itself


def test_two_pods_with_one_source_port_are_each_answered(lab: Lab, pods: Pods) -> None:
    with lab.daemon("--intercept", settings=_SETTINGS) as daemon:
        for pod in (pods.first, pods.second):
            done = pod.client(sys.executable, "-c", _FROM_PORT)
            assert done.stdout == "HTTP/1.1 200 OK\n", done.stderr
        assert daemon.stop() == 0
        origins = {event["origin"] for event in daemon.log() if event["event"] == "legacy-caller"}
        assert origins == {"10.88.0.2", "10.88.0.3"}


@pytest.mark.parametrize("source", ["192.0.2.7", "10.99.0.2", "169.254.100.200"])
def test_a_spoofed_source_gets_nothing(lab: Lab, pods: Pods, source: str) -> None:
    """An address of nobody, of the host, of the listener itself."""
    pods.first.ip(f"addr add {source}/32 dev lo")
    try:
        with lab.daemon("--intercept", settings=_SETTINGS) as daemon:
            got = heard(pods.first, f"http://{SERVICE}{ITEM}", "--interface", source, "--max-time", "1")
            assert (got.status, got.exit_code) == (0, 28)
            assert daemon.stop() == 0
            assert not [event for event in daemon.log() if event.get("origin") == source]
    finally:
        pods.first.ip(f"addr del {source}/32 dev lo")


def test_another_pods_address_gets_nothing(lab: Lab, pods: Pods) -> None:
    """The answer goes to the pod that has it, which knows of no such connection."""
    pods.first.ip("addr add 10.88.0.3/32 dev lo")
    try:
        with lab.daemon("--intercept", settings=_SETTINGS):
            heard(pods.second, f"http://{SERVICE}{ITEM}")
            url = f"http://{SERVICE}{ITEM}"
            got = heard(pods.first, url, "--interface", "10.88.0.3", "--max-time", "1")
            assert got.status == 0
    finally:
        pods.first.ip("addr del 10.88.0.3/32 dev lo")


def test_closed_refuses_forwarded_calls_at_once_too(lab: Lab, pods: Pods) -> None:
    settings = {"intercept": {"on_failure": "closed", "forwarded": ["pods"]}}
    with lab.daemon("--intercept", settings=settings) as daemon:
        assert heard(pods.first, f"http://{SERVICE}{ITEM}").status == 200
        daemon.kill()
        got = heard(pods.first, f"http://{SERVICE}{ITEM}", "--max-time", "2")
        assert (got.status, got.exit_code) == (0, 7)
        with lab.daemon(settings=settings) as next_one:
            assert lab.intercept(next_one, "up").returncode == 0
            assert lab.intercept(next_one, "down").returncode == 0


@pytest.mark.parametrize("place", ["host", "pod"])
def test_30b_the_listener_takes_nothing_that_was_not_redirected(lab: Lab, pods: Pods, place: str) -> None:
    there = lab.host if place == "host" else pods.first
    with lab.daemon("--intercept", settings=_SETTINGS):
        for host in ("169.254.100.200:200", "[fd64:64c8::200]:200"):
            got = heard(there, f"http://{host}{ITEM}", "--max-time", "2")
            assert got.status == 0
            assert got.exit_code == 7 or place == "pod"


def test_a_loop_is_refused_and_logged(lab: Lab) -> None:
    """Another tool sends the proxy's own calls back to it, mark or not."""
    with lab.daemon("--intercept", settings={"intercept": {"method": "nftables"}}) as daemon:
        lab.host.nft(
            "add table ip other; add chain ip other output { type nat hook output priority -120; };"
            f"add rule ip other output ip daddr {SERVICE} tcp dport 80 dnat to 169.254.100.200:200"
        )
        try:
            got = lab.get()
        finally:
            lab.host.nft("delete table ip other")
        assert got.status in (502, 503)
        until = time.monotonic() + 10  # the token that it did not get is not asked for at once
        while lab.get("/latest/meta-data/zone-id").status != 200:
            assert time.monotonic() < until
        assert daemon.stop() == 0
        assert "loop" in {event.get("slug") for event in daemon.log() if event["event"] == "refused"}


def test_31_a_daemon_that_may_not_exempt_its_calls_does_not_intercept(lab: Lab) -> None:
    before = lab.host.everything()
    done = lab.host.client(
        *("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"),
        *(sys.executable, "-m", "imds_proxy", "run", "--intercept", "--listen", "127.0.0.1:0"),
        timeout=30,
    )
    assert done.returncode == 1
    assert "the proxy's own calls to the service would be redirected to itself" in done.stderr
    assert "CAP_NET_ADMIN" in done.stderr
    assert lab.host.everything() == before
