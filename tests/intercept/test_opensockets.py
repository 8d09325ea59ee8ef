from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imds_proxy.config_values import Address
from imds_proxy.intercept.opensockets import destroy, open_connections, programs
from netns import ip
from plans import SERVICES


@pytest.fixture
def service() -> Iterator[tuple[Address, ...]]:
    """Sockets that listen at both addresses of the service, in a network of its own."""
    ip(f"addr add {SERVICES[0].host}/32 dev lo")
    ip(f"addr add {SERVICES[1].host}/128 dev lo nodad")
    with (
        socket.create_server((SERVICES[0].host, 80)),
        socket.create_server((SERVICES[1].host, 80), family=socket.AF_INET6),
    ):
        yield SERVICES


pytestmark = pytest.mark.usefixtures("network")


@pytest.mark.parametrize("spelling", [SERVICES[0].host, f"::ffff:{SERVICES[0].host}", SERVICES[1].host])
def test_an_open_connection_is_listed_with_its_user_and_closed(
    service: tuple[Address, ...], spelling: str
) -> None:
    with socket.create_connection((spelling, 80)) as client:
        (found,) = open_connections(service)
        assert found.local.port == client.getsockname()[1]
        assert found.remote in service
        assert found.uid == os.getuid()
        assert found.inode == os.fstat(client.fileno()).st_ino
        assert programs({found.inode}) == {found.inode: (os.getpid(), str(Path(sys.executable).resolve()))}
        assert destroy([found]) == 1
        with pytest.raises(ConnectionAbortedError):
            client.send(b"x")
    assert open_connections(service) == []
    assert destroy([found]) == 0


def test_other_ports_and_addresses_are_not_listed(service: tuple[Address, ...]) -> None:
    with socket.create_server(("127.0.0.1", 80)), socket.create_connection(("127.0.0.1", 80)):
        assert open_connections(service) == []


def test_more_than_one_message_of_connections_is_read(service: tuple[Address, ...]) -> None:
    many = [socket.create_connection((SERVICES[0].host, 80)) for _ in range(100)]
    found = open_connections(service)
    assert {one.local.port for one in found} == {one.getsockname()[1] for one in many}
    assert destroy(found) == 100
    for one in many:
        one.close()
