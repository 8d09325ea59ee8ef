"""Checks of the network, with real sockets on loopback."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from imds_proxy.config import Address
from imds_proxy.doctor import network

PROC = Path("/proc")
SERVICE = "100.100.100.200"


def test_a_library_that_is_missing_is_a_warning() -> None:
    assert network.libnftables("libno-such-library.so.1").state == "warn"
    assert network.libnftables("libc.so.6").state == "ok"


def test_the_nft_program_is_named_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert network.nft().slug == "nft"
    monkeypatch.setattr(network, "find_program", lambda name: None)
    assert network.nft().state == "warn"


def test_loopback_has_a_route() -> None:
    assert network.route(Address("127.0.0.1", 80), expected=True).state == "ok"


def test_a_missing_route_is_bad_only_where_one_should_be() -> None:
    # The kernel refuses a broadcast address to a socket that did not ask for it, whatever the routes.
    nowhere = Address("255.255.255.255", 80)
    assert network.route(nowhere, expected=False).state == "unknown"
    assert network.route(nowhere, expected=True).state == "bad"


def test_a_free_port_is_ok_and_stays_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = Address("127.0.0.1", port)
    assert network.listen_address(address, PROC).state == "ok"
    assert network.listen_address(address, PROC).state == "ok"


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_names_its_holder(bound: str) -> None:
    with socket.create_server((bound, 0)) as server:
        finding = network.listen_address(Address("127.0.0.1", server.getsockname()[1]), PROC)
    assert finding.state == "bad"
    assert f"(pid {os.getpid()})" in finding.sentence


def test_an_address_that_is_not_ours_is_bad() -> None:
    finding = network.listen_address(Address("192.0.2.77", 0), PROC)
    assert finding.state == "bad"
    assert "add the address" in (finding.remedy or "")


def test_open_connections_to_the_service_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address("127.0.0.1", server.getsockname()[1])
        assert network.open_connections([address], PROC).state == "ok"
        with socket.create_connection((address.host, address.port)):
            finding = network.open_connections([address], PROC)
            server.accept()[0].close()
    assert finding.state == "warn"
    assert finding.sentence.startswith("1 connections")


def test_no_table_is_unknown(tmp_path: Path) -> None:
    assert network.open_connections([], tmp_path).state == "unknown"


@pytest.mark.parametrize(
    ("environment", "state"),
    [
        ({}, "ok"),
        ({"http_proxy": ""}, "ok"),
        ({"http_proxy": "http://u:secret@p:1"}, "warn"),
        ({"HTTP_PROXY": "http://u:secret@p:1", "NO_PROXY": "localhost"}, "warn"),
        ({"http_proxy": "http://p:1", "NO_PROXY": f"localhost,{SERVICE}"}, "ok"),
        ({"http_proxy": "http://p:1", "no_proxy": f"localhost, {SERVICE}"}, "ok"),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "ok"),
        ({"http_proxy": "http://p:1", "no_proxy": "100.64.0.0/10"}, "ok"),
        ({"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8,x/y"}, "warn"),
        ({"http_proxy": "http://p:1", "no_proxy": SERVICE, "NO_PROXY": "localhost"}, "warn"),
    ],
)
def test_a_proxy_variable_needs_an_exception_for_the_service(environment: dict[str, str], state: str) -> None:
    finding = network.proxy_variables(environment, SERVICE)
    assert finding.state == state
    assert "secret" not in finding.sentence
