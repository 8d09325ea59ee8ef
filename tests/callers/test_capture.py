"""Capturing a process: only what was one program while it was looked at."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imds_proxy.callers.capture import captured_by_note, captured_by_socket, is_what_was_noted
from imds_proxy.callers.connects import ConnectNote
from imds_proxy.callers.procfs import ProcessView
from imds_proxy.callers.profile import read_facts


@contextmanager
def connected(client: Any, server: socket.socket) -> Iterator[tuple[ProcessView, int]]:
    """A view of the client, and the inode of the socket by which it is connected."""
    client.connect(server)
    inode = int(client.run("result = os.fstat(connection.fileno()).st_ino"))
    with ProcessView(client.pid) as view:
        yield view, inode


def test_a_holder_is_captured_with_the_descriptor(client: Any, server: socket.socket) -> None:
    with connected(client, server) as (view, inode):
        found = captured_by_socket(view, inode, 100)
        assert found is not None
        assert view.holds(found.descriptor, inode)
        assert b"import" in found.cmdline
        assert captured_by_socket(view, inode, 1) is None
        assert captured_by_socket(view, inode + 1, 100) is None
        client.run("connection.close()")
        assert captured_by_socket(view, inode, 100) is None


def test_one_that_has_ended_is_not_captured(client: Any, server: socket.socket) -> None:
    with connected(client, server) as (view, inode):
        client.end()
        assert captured_by_socket(view, inode, 100) is None
        assert captured_by_note(view, noted(client.pid, b"python")) is None


def noted(pid: int, comm: bytes, thread: int | None = None) -> ConnectNote:
    return ConnectNote(thread or pid, pid, os.geteuid(), 0, 1, comm, 1.0)


def test_a_noted_process_is_captured_while_it_has_its_name(client: Any) -> None:
    client.run("pass")
    with ProcessView(client.pid) as view:
        found = read_facts(view)
        assert found is not None
        comm = found[0].stat.comm
        assert captured_by_note(view, noted(client.pid, comm)) is not None
        assert captured_by_note(view, noted(client.pid, b"other")) is None
        assert is_what_was_noted(view, noted(client.pid, b"worker", thread=4_000_000), found[0])
