"""The daemon's own interception: what its admin commands do, on a host with a real service beyond a veth."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cloud import SERVICE, Lab, cloud_and_host
from imds_proxy.config import Config
from imds_proxy.server.admin import ask
from imds_proxy.server.intercepting import METHODS, services_of
from plans import SERVICES
from proxy import Proxy

# A client that asks twice on one connection, and is told when.
_KEPT = f"""
import http.client, sys
connection = http.client.HTTPConnection("{SERVICE}", timeout=5)
for line in sys.stdin:
    connection.request("GET", "/latest/meta-data/instance-id")
    answer = connection.getresponse()
    answer.read()
    print(answer.status, connection.sock.getsockname()[1] if connection.sock else None, flush=True)
"""

_BUSY = f"""
import http.client
connection = http.client.HTTPConnection("{SERVICE}", timeout=5)
number, last = 0, False
while not last:
    connection.request("GET", "/latest/meta-data/instance-id")
    answer = connection.getresponse()
    assert answer.read().startswith(b"i-") and answer.status == 200
    last = answer.will_close
    number += 1
    if number == 100:
        print("busy", flush=True)
print("closed in good order")
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with cloud_and_host("--http-tokens", "required") as made:
        yield made


class Kept:
    """A client on the host that keeps its connection."""

    def __init__(self, lab: Lab) -> None:
        self.process = subprocess.Popen(
            lab.host.words(sys.executable, "-c", _KEPT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def get(self) -> tuple[int, str]:
        """The status, and the port that it came from (`None`: the connection was closed after it)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        status, port = self.process.stdout.readline().split()
        return int(status), port

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def admin(daemon: Proxy, command: str, **more: object) -> dict[str, object]:
    return ask(daemon.config.parent / "admin.sock", command, more)


def test_the_services_are_those_of_the_cloud() -> None:
    assert services_of(Config()) == SERVICES
    assert list(METHODS) == ["nftables", "ebpf"]


def test_a_daemon_goes_up_and_down_when_asked(lab: Lab) -> None:
    with lab.daemon() as daemon:
        assert lab.get().status == 403
        assert admin(daemon, "intercept-up")["ok"]
        assert lab.get().status == 200
        assert admin(daemon, "intercept-down") == {"ok": True, "errors": [], "was_up": True}
        assert lab.get().status == 403
        assert admin(daemon, "intercept-down")["was_up"] is False


def test_going_down_ends_redirected_connections_in_good_order(lab: Lab) -> None:
    with lab.daemon("--intercept") as daemon, Kept(lab) as client:
        status, port = client.get()
        assert status == 200
        assert client.get() == (200, port)
        admin(daemon, "intercept-down")
        with pytest.raises(ValueError, match="unpack"):
            client.get()  # its program sees an orderly close, and would connect again


def test_a_connection_from_before_is_listed_and_taken_over_and_redirected_ones_are_not(lab: Lab) -> None:
    with lab.daemon() as daemon, Kept(lab) as old, Kept(lab) as new:
        assert old.get()[0] == 403
        answer = admin(daemon, "intercept-up")
        assert isinstance(answer["report"], dict)
        (listed,) = answer["report"]["passing"]
        assert listed["pid"] == old.process.pid
        status, port = new.get()
        assert status == 200
        assert admin(daemon, "intercept-up", takeover=True)["closed"] == 1
        assert new.get() == (200, port)
        with pytest.raises(ValueError, match="unpack"):
            old.get()
        assert json.dumps(admin(daemon, "intercept-status")).count('"passing": []') == 1


def test_a_busy_connection_is_neither_taken_over_nor_listed_and_ends_in_good_order(lab: Lab) -> None:
    """Such are answered without a transport, from one request to the next."""
    with lab.daemon("--intercept") as daemon:
        busy = subprocess.Popen(
            lab.host.words(sys.executable, "-c", _BUSY),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert busy.stdout is not None
        assert busy.stdout.readline() == "busy\n"
        answer = admin(daemon, "intercept-up", takeover=True)
        assert answer["closed"] == 0
        assert isinstance(answer["report"], dict)
        assert answer["report"]["passing"] == []
        admin(daemon, "intercept-down")
        said, errors = busy.communicate(timeout=20)
        assert said == "closed in good order\n", errors


def test_the_proxys_own_connections_are_never_taken_over(lab: Lab) -> None:
    with lab.daemon("--intercept") as daemon:
        assert lab.get().status == 200  # the pool has a connection to the service now
        assert admin(daemon, "intercept-up", takeover=True)["closed"] == 0


def test_what_fails_is_told(lab: Lab) -> None:
    lab.host.ip("route del default via 10.99.0.1")
    lab.host.ip("-6 route del default via fd99::1")
    try:
        with lab.daemon() as daemon:
            answer = admin(daemon, "intercept-up")
            assert answer["ok"] is False
            assert "no route to 100.100.100.200" in str(answer["errors"])
    finally:
        lab.host.ip("route add default via 10.99.0.1")
        lab.host.ip("route add default via fd99::1")


def test_direct_use_has_another_port(lab: Lab) -> None:
    with lab.daemon("--intercept") as daemon:
        done = lab.host.client("curl", "-sS", f"http://127.0.0.1:{daemon.port}/latest/meta-data/instance-id")
        assert done.stdout.startswith("i-")
