"""Real client processes that do as they are told, one line at a time."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from places import cgroup

# All is imported at once: another user may not be able to read this Python's library.
# Each line on stdin is Python to run; when it has run, a line with repr(result) comes back.
_OBEDIENT = """
import ctypes, encodings.idna, os, signal, socket, sys
result = None
for line in sys.stdin:
    result = None
    exec(line)
    print(repr(result), flush=True)
"""


class Client:
    """A subprocess that runs one statement at a time; `result` set by a statement is its answer."""

    def __init__(self, arguments: list[str] | None = None, prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-c", _OBEDIENT, *(arguments or [])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def run(self, statement: str) -> str:
        self.tell(statement)
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, statement: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(statement + "\n")
        self.process.stdin.flush()

    def connect(self, server: socket.socket, name: str = "connection") -> None:
        self.run(f"{name} = socket.create_connection({server.getsockname()[:2]!r}, 5)")

    def end(self) -> None:
        """Ends the process and waits until it is gone."""
        self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


@pytest.fixture
def new_client() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def start(arguments: list[str] | None = None, prefix: tuple[str, ...] = ()) -> Client:
        clients.append(Client(arguments, prefix))
        return clients[-1]

    yield start
    for client in clients:
        client.end()


@pytest.fixture
def client(new_client: Callable[..., Client]) -> Client:
    return new_client()


@pytest.fixture
def new_cgroup() -> Iterator[Callable[[str], Path]]:
    """Makes cgroups in the v2 hierarchy, where this machine lets us; removed at the end."""
    with ExitStack() as made:
        yield lambda name: made.enter_context(cgroup(name))
