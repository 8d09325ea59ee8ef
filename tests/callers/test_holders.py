"""Every process that holds a socket, each under its own user."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import pytest

from imds_proxy.callers.holders import holders_of, process_caller
from imds_proxy.callers.hostfiles import HostFiles
from imds_proxy.callers.profile import Surroundings
from imds_proxy.callers.sockdiag import SocketOwner
from imds_proxy.callers.usernames import UserNames

AROUND = Surroundings.of_host(UserNames(), HostFiles(), "/proc")


def owner_of(client: Any, server: socket.socket) -> SocketOwner:
    client.connect(server)
    return SocketOwner(os.geteuid(), int(client.run("result = os.fstat(connection.fileno()).st_ino")), None)


def test_who_holds_it_is_listed(client: Any, server: socket.socket) -> None:
    owner = owner_of(client, server)
    holders = holders_of(owner, AROUND, time.monotonic() + 5)
    assert [one.process.pid for one in holders if one.process] == [client.pid]
    client.run("connection.close()")
    assert holders_of(owner, AROUND, time.monotonic() + 5) == ()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_holder_has_its_own_user_and_not_that_of_the_socket(client: Any, server: socket.socket) -> None:
    owner = owner_of(client, server)
    client.run("os.setgroups([]); os.setgid(65534); os.setuid(65534)")
    (holder,) = holders_of(owner, AROUND, time.monotonic() + 5)
    assert (holder.identity.uid, owner.uid) == (65534, 0)


def test_too_many_processes_are_said_and_not_guessed(client: Any, server: socket.socket) -> None:
    with pytest.raises(TimeoutError):
        holders_of(owner_of(client, server), AROUND, time.monotonic() - 1)


def test_a_process_alone_is_a_caller_too(client: Any) -> None:
    client.run("pass")
    caller = process_caller(client.pid, AROUND)
    assert caller.process is not None
    assert (caller.process.pid, caller.identity.uid, caller.script) == (client.pid, os.geteuid(), "-c")
    client.end()
    with pytest.raises(OSError, match="No such"):
        process_caller(client.pid, AROUND)
