"""Connection tracking: the client's own port where the redirect had to give it another (ATTACKS 30b)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.callers import conntrack as module
from imds_proxy.callers.conntrack import Conntrack
from imds_proxy.callers.sockdiag import Endpoint

# In a namespace: a redirected and a direct connection from one address and port, in both orders.
_SAME_PORT_TWICE = """
import json, os, socket, subprocess
from imds_proxy.callers.resolver import Resolver

def sh(*words, text=None):
    subprocess.run(words, input=text, text=True, check=True)

sh("ip", "link", "set", "lo", "up")
sh("ip", "addr", "add", "169.254.100.200/32", "dev", "lo")
sh("ip", "route", "add", "default", "dev", "lo")
server = socket.create_server(("169.254.100.200", 0))
port = server.getsockname()[1]
sh("nft", "-f", "-", text=f'''table inet to_the_proxy {{ chain output {{
    type nat hook output priority -100;
    ip daddr 100.100.100.200 tcp dport 80 dnat ip to 169.254.100.200:{port}
}}
}}''')
targets = {"redirected": ("100.100.100.200", 80), "direct": ("169.254.100.200", port)}
resolver = Resolver()
found = {}
for number, order in enumerate((("redirected", "direct"), ("direct", "redirected"))):
    clients, accepted = [], []
    for kind in order:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("169.254.100.200", 45000 + number))
        client.connect(targets[kind])
        connection, peer = server.accept()
        clients.append(client)
        accepted.append(connection)
        ticket = resolver.look_up(connection, peer)
        found[f"{kind} of {order[0]} first"] = [
            ticket.owner is not None and ticket.owner.inode == os.fstat(client.fileno()).st_ino,
            peer[1] == 45000 + number,
            ticket.why,
        ]
print(json.dumps(found))
"""

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "nft"))),
    reason="needs root, unshare, iproute2 and nftables",
)


@pytest.mark.root
@needs_namespaces
def test_30b_two_connections_from_one_port_are_told_apart() -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", _SAME_PORT_TWICE], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[bool, bool, str | None]] = json.loads(done.stdout)
    assert len(found) == 4
    assert not all(kept for _, kept, _ in found.values()), "no port was changed: nothing is shown"
    for kind, (is_mine, _, why) in found.items():
        assert is_mine, (kind, why)


def test_a_connection_that_was_never_tracked_is_not_known() -> None:
    tracking = Conntrack()
    ends = (Endpoint.parse("127.0.0.1", 1), Endpoint.parse("127.0.0.1", 2))
    assert tracking.original(*ends) is None
    assert tracking.original(Endpoint.parse("::1", 1), ends[1]) is None
    tracking.close()
    assert tracking.original(*ends) is None


def test_a_tuple_is_written_and_read_in_both_families() -> None:
    for host in ("10.1.2.3", "fd00::1"):
        ends = (Endpoint.parse(host, 4321), Endpoint.parse(host, 80))
        raw = module._nested(module._TUPLE_ORIG, module._tuple(*ends))
        assert module._read(raw) == ends


@given(st.binary(max_size=80))
def test_nonsense_from_the_kernel_is_no_answer(raw: bytes) -> None:
    found = module._read(raw)
    assert found is None or len(found) == 2


def test_without_the_right_to_ask_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refused)
    assert Conntrack().original(Endpoint.parse("127.0.0.1", 1), Endpoint.parse("127.0.0.1", 2)) is None
