from __future__ import annotations

import os
import socket
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imds_proxy.callers.cgroupfs import CgroupTree
from imds_proxy.callers.redirect import endpoint_of
from imds_proxy.callers.sockdiag import Endpoint, SockDiag, SocketOwner


def _endpoint(name: object) -> Endpoint:
    endpoint = endpoint_of(name)
    assert endpoint is not None
    return endpoint


def _ask(client: socket.socket) -> SocketOwner | None:
    with SockDiag() as diag:
        return diag.owner(_endpoint(client.getsockname()), _endpoint(client.getpeername()))


def _pair(family: socket.AddressFamily, host: str, to: str) -> tuple[socket.socket, socket.socket]:
    dual = family == socket.AF_INET6 and host == "::"
    with socket.create_server((host, 0), family=family, dualstack_ipv6=dual) as server:
        client = socket.create_connection((to, server.getsockname()[1]), 5)
        accepted, _ = server.accept()
    return client, accepted


@pytest.mark.parametrize(
    ("family", "host", "to"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "IPv4 client of a dual-stack listener"],
)
def test_the_owner_of_a_connection_is_found_by_its_exact_ends(
    family: socket.AddressFamily, host: str, to: str
) -> None:
    client, accepted = _pair(family, host, to)
    with client, accepted, SockDiag() as diag:
        # as the proxy sees it: the peer of the accepted socket, and where it went
        owner = diag.owner(_endpoint(accepted.getpeername()), _endpoint(accepted.getsockname()))
        assert owner is not None
        assert (owner.uid, owner.inode) == (os.geteuid(), os.fstat(client.fileno()).st_ino)


def test_a_client_socket_with_v4_mapped_ends_is_found_by_its_ipv4_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.socket(socket.AF_INET6)
        client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        accepted, _ = server.accept()
    with client, accepted:
        owner = _ask(client)
        assert owner is not None
        assert owner.inode == os.fstat(client.fileno()).st_ino


def test_the_two_ends_of_a_connection_have_owners_of_their_own() -> None:
    client, accepted = _pair(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    with client, accepted:
        first, second = _ask(client), _ask(accepted)
        assert first is not None
        assert second is not None
        assert first.inode != second.inode


def test_a_half_closed_connection_still_has_its_owner() -> None:
    client, accepted = _pair(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    with client, accepted:
        accepted.shutdown(socket.SHUT_WR)  # the client is now in CLOSE_WAIT
        client.settimeout(5)
        assert client.recv(1) == b""
        assert _ask(client) is not None


def test_a_socket_that_its_process_closed_has_no_owner() -> None:
    client, accepted = _pair(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    ends = _endpoint(client.getsockname()), _endpoint(client.getpeername())
    with accepted, SockDiag() as diag:
        client.close()
        assert diag.owner(*ends) is None  # FIN-WAIT without an inode


def test_a_time_wait_socket_is_never_believed_to_be_of_root() -> None:
    client, accepted = _pair(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    ends = _endpoint(client.getsockname()), _endpoint(client.getpeername())
    client.close()
    accepted.close()
    with SockDiag() as diag:
        assert diag.owner(*ends) is None


def test_a_listening_socket_does_not_answer_for_a_connection_that_does_not_exist() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, SockDiag() as diag:
        local = _endpoint(server.getsockname())
        assert diag.owner(local, Endpoint.parse("127.0.0.1", 1)) is None
        assert diag.owner(Endpoint.parse("127.0.0.1", 1), local) is None


def test_ends_of_different_families_have_no_owner() -> None:
    with SockDiag() as diag:
        assert diag.owner(Endpoint.parse("127.0.0.1", 1), Endpoint.parse("::1", 1)) is None


def test_the_cgroup_id_is_that_of_the_asking_process_where_v2_is_mounted() -> None:
    tree = CgroupTree.find()
    client, accepted = _pair(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    with client, accepted:
        owner = _ask(client)
    assert owner is not None
    path = next(
        line[3:] for line in Path("/proc/self/cgroup").read_text().split("\n") if line.startswith("0::")
    )
    expected = tree.id_of(path)
    tree.close()
    if owner.cgroup_id is None or expected is None:
        pytest.skip("this kernel, or this mount, does not say")
    assert owner.cgroup_id == expected


def test_an_answer_to_an_earlier_question_is_skipped() -> None:
    client, accepted = _pair(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    ends = _endpoint(client.getsockname()), _endpoint(client.getpeername())
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)
    with client, accepted, SockDiag(netlink) as diag:
        late = struct.pack("=IHHII", 72, 20, 1, 0xFFFF_0000, 0) + struct.pack("=BBBxI", 2, 6, 0, 0xFFFFFFFF)
        netlink.send(late.ljust(72, b"\0"))  # nobody reads its answer
        owner = diag.owner(*ends)
        assert owner is not None
        assert owner.inode == os.fstat(client.fileno()).st_ino


def test_a_closed_diag_socket_answers_nothing() -> None:
    diag = SockDiag()
    diag.close()
    assert diag.owner(Endpoint.parse("127.0.0.1", 1), Endpoint.parse("127.0.0.1", 2)) is None


@pytest.mark.parametrize("host", ["", "localhost", "1.2.3", "::1::", "1.2.3.4 "])
def test_what_is_no_address_is_an_error(host: str) -> None:
    with pytest.raises(OSError):
        Endpoint.parse(host, 80)


def test_a_v4_mapped_address_is_ipv4() -> None:
    assert Endpoint.parse("::ffff:10.1.2.3", 7) == Endpoint.parse("10.1.2.3", 7)
    assert Endpoint.parse("::ffff:10.1.2.3", 7).host == "10.1.2.3"


def test_a_look_up_takes_far_less_than_a_millisecond() -> None:
    client, accepted = _pair(socket.AF_INET, "127.0.0.1", "127.0.0.1")
    ends = _endpoint(client.getsockname()), _endpoint(client.getpeername())
    with client, accepted, SockDiag() as diag:
        assert statistics.median(_timed(diag.owner, *ends) for _ in range(200)) < 0.0005


def _timed(call: Callable[..., Any], *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start
