"""Who goes past the redirect is named, once it has had its time to be accepted."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from cloud import SERVICE, cloud_and_host
from imds_proxy.config import Address
from imds_proxy.demo.processes import ending
from imds_proxy.ledger.entries import StableCaller
from imds_proxy.ledger.schema import open_to_read
from imds_proxy.policy.caller import Caller, Identity, Process
from imds_proxy.server import pastwatch
from imds_proxy.server.pastwatch import PastWatch

CONNECT = """
import socket, sys
wire = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(wire.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def service() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("127.0.0.1", listener.getsockname()[1])


@pytest.fixture
def client(service: Address) -> Iterator[tuple[int, Address]]:
    """A process that holds a connection to the service: its pid and its end."""
    words = [sys.executable, "-c", CONNECT, str(service.port)]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with ending(child):
        assert child.stdout is not None
        yield child.pid, Address("127.0.0.1", int(child.stdout.readline()))
        assert child.stdin is not None
        child.stdin.close()


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(open_to_read(path)) as reading:
        return reading.execute(query).fetchall()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watching(
    service: Address,
    clock: Callable[[], float] = lambda: 0.0,
    active: Callable[[], bool] = lambda: True,
    peers: Callable[[], Collection[Address]] = tuple,
) -> PastWatch:
    def name(pid: int) -> Caller:
        return Caller(Identity(os.geteuid()), process=Process(pid, "/opt/agent"))

    return PastWatch((service,), active, peers, name, clock)


def test_a_connection_that_nobody_accepted_is_named_at_the_second_look(
    service: Address, client: tuple[int, Address]
) -> None:
    clock = Clock()
    past = watching(service, clock)
    assert past.look(()) == []
    ((alike, count),) = past.look(())
    assert (alike.session, alike.caller.exe, alike.path, count) == ("bypass", "/opt/agent", None, 1)
    assert past.look(()) == []
    clock.now = 61.0
    assert past.look(()) == [(alike, 0)]  # it is still there


def test_an_accepted_connection_goes_past_nothing(service: Address, client: tuple[int, Address]) -> None:
    past = watching(service)
    assert past.look((client[1],)) == past.look((client[1],)) == []


def test_the_proxys_own_connections_are_its_own(service: Address) -> None:
    past = watching(service)
    with socket.create_connection((service.host, service.port)):
        assert past.look(()) == past.look(()) == []


def test_a_process_that_cannot_be_named_leaves_its_user(
    service: Address, client: tuple[int, Address]
) -> None:
    def nobody(pid: int) -> Caller:
        raise OSError

    past = PastWatch((service,), lambda: True, tuple, nobody, lambda: 0.0)
    past.look(())
    ((alike, _),) = past.look(())
    assert alike.caller == StableCaller(uid=os.geteuid(), origin="a connection past the redirect")


def test_it_looks_only_while_the_redirect_is_in_force(
    service: Address, client: tuple[int, Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pastwatch, "_INTERVAL", 0.01)
    asked: list[None] = []
    active = False

    def peers() -> tuple[Address, ...]:
        asked.append(None)
        return ()

    past = watching(service, active=lambda: active, peers=peers)

    async def main() -> None:
        nonlocal active
        task = asyncio.get_running_loop().create_task(past.run())
        await asyncio.sleep(0.1)
        assert asked == []
        active = True
        found = past.take()
        while not found:
            await asyncio.sleep(0.01)
            found = past.take()
        assert [count for _, count in found] == [1]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 30))


HOLD = f"""
import socket, sys
wire = socket.create_connection(("{SERVICE}", 80))
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_ledger_says_when_the_redirect_was_in_force_and_who_went_past_it() -> None:
    with cloud_and_host("--http-tokens", "required") as lab:
        old = subprocess.Popen(
            lab.host.words(sys.executable, "-c", HOLD),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with ending(old), lab.daemon("--intercept") as daemon:
            assert old.stdout is not None
            assert old.stdin is not None
            assert old.stdout.readline() == "connected\n"
            assert lab.get().status == 200
            ledger = daemon.state / "ledger.db"
            until = time.monotonic() + 30
            while not (
                seen := rows(
                    ledger, "SELECT exe FROM callers JOIN sessions ON id = caller WHERE session = 'bypass'"
                )
            ):
                assert time.monotonic() < until
                time.sleep(0.1)
            assert [Path(exe).name for (exe,) in seen] == [Path(sys.executable).resolve().name]
            assert lab.intercept(daemon, "down").returncode == 0
            assert daemon.stop() == 0
            old.stdin.close()
            assert rows(ledger, "SELECT interception FROM spans ORDER BY id") == [("redirect",), ("none",)]
            assert rows(ledger, "SELECT count FROM sessions WHERE session = 'legacy'") == [(1,)]
