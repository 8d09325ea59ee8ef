from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from imds_proxy.callers.redirect import endpoint_of, local_endpoint, original_destination
from imds_proxy.callers.sockdiag import Endpoint

# Runs in a network namespace of its own; prints what the resolver's parts say of each kind of connection.
_IN_A_NAMESPACE = """
import json, os, socket, subprocess
from imds_proxy.callers.redirect import endpoint_of, local_endpoint, original_destination
from imds_proxy.callers.resolver import Resolver
from imds_proxy.callers.sockdiag import SockDiag

def sh(*words, text=None):
    subprocess.run(words, input=text, text=True, check=True)

def answer(family, listen, to, bind=None):
    with socket.create_server((listen, 0), family=family, dualstack_ipv6=(listen == "::")) as server:
        port = server.getsockname()[1]
        sh("nft", "-f", "-", text=f'''
            table inet to_the_proxy
            delete table inet to_the_proxy
            table inet to_the_proxy {{
                chain output {{
                    type nat hook output priority -100;
                    ip daddr 100.100.100.200 tcp dport 80 dnat ip to 169.254.100.200:{port}
                    ip6 daddr fd00:100::200 tcp dport 80 dnat ip6 to [fd00:169::200]:{port}
                }}
            }}''')
        target = (to, 80) if to in ("100.100.100.200", "fd00:100::200") else (to, port)
        with socket.create_connection(target, 5) as client:
            accepted, peer = server.accept()
            with accepted:
                resolver = Resolver()
                ticket = resolver.look_up(accepted, peer)
                original = original_destination(accepted, local_endpoint(accepted))
                resolver.close()
                return {
                    "original": original and [original.host, original.port],
                    "mine": ticket.owner is not None
                    and ticket.owner.inode == os.fstat(client.fileno()).st_ino,
                    "why": ticket.why,
                }

sh("ip", "link", "set", "lo", "up")
sh("ip", "addr", "add", "169.254.100.200/32", "dev", "lo")
sh("ip", "route", "add", "default", "dev", "lo")
sh("ip", "-6", "addr", "add", "fd00:169::200/128", "dev", "lo", "nodad")
sh("ip", "-6", "route", "add", "default", "dev", "lo")
print(json.dumps({
    "ipv4": answer(socket.AF_INET, "169.254.100.200", "100.100.100.200"),
    "ipv6": answer(socket.AF_INET6, "fd00:169::200", "fd00:100::200"),
    "dual-stack": answer(socket.AF_INET6, "::", "100.100.100.200"),
    "direct": answer(socket.AF_INET, "169.254.100.200", "169.254.100.200"),
}))
"""

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "nft"))),
    reason="needs root, unshare, iproute2 and nftables",
)


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, object]]:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", _IN_A_NAMESPACE], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    parsed: dict[str, dict[str, object]] = json.loads(done.stdout)
    return parsed


@pytest.mark.root
@needs_namespaces
@pytest.mark.parametrize(
    ("kind", "original"),
    [
        ("ipv4", ["100.100.100.200", 80]),
        ("ipv6", ["fd00:100::200", 80]),
        ("dual-stack", ["100.100.100.200", 80]),
    ],
)
def test_a_redirected_connection_names_where_it_went_and_so_its_client(
    answers: dict[str, dict[str, object]], kind: str, original: list[object]
) -> None:
    assert answers[kind] == {"original": original, "mine": True, "why": None}


@pytest.mark.root
@needs_namespaces
def test_a_direct_connection_that_conntrack_saw_was_not_redirected(
    answers: dict[str, dict[str, object]],
) -> None:
    assert answers["direct"] == {"original": None, "mine": True, "why": None}


def test_a_connection_without_a_redirect_has_no_other_destination(server: socket.socket) -> None:
    with socket.create_connection(server.getsockname(), 5):
        accepted, _ = server.accept()
        with accepted:
            local = local_endpoint(accepted)
            assert local == endpoint_of(server.getsockname())
            assert local is not None
            assert original_destination(accepted, local) is None


def test_a_closed_socket_has_no_end() -> None:
    closed = socket.socket()
    closed.close()
    assert local_endpoint(closed) is None


def test_a_unix_socket_has_no_end() -> None:
    first, second = socket.socketpair()
    with first, second:
        assert local_endpoint(first) is None


@pytest.mark.parametrize(
    "name", [None, "", "/run/x", (), ("h",), (1, 2), ("1.2.3.4", "80"), ("nohost", 1), ["::1", 1]]
)
def test_what_is_no_socket_address_is_no_endpoint(name: object) -> None:
    assert endpoint_of(name) is None


def test_the_scope_of_a_link_local_address_is_kept() -> None:
    assert endpoint_of(("fe80::1%lo", 80, 0, 1)) == Endpoint(
        socket.inet_pton(socket.AF_INET6, "fe80::1"), 80, 1
    )
