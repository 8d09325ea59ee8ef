"""Slow, half-open and greedy callers (ATTACKS 17, 34): bounded in time and memory, others are served."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attack import parsed, say
from imds_proxy.emulator.service import Emulator
from proxy import Proxy, running_proxy

MAC = "/latest/meta-data/mac"
GET = b"GET /latest/meta-data/mac HTTP/1.1\r\nHost: 100.100.100.200\r\n\r\n"
LAST = GET[:-2] + b"Connection: close\r\n\r\n"
MANY = 10_000


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The daemon inherits the hard limit; only root may raise it, and that only where it is low.
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + 500, max(hard, MANY + 1000)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(proxy: Proxy) -> int:
    """MiB of memory of the daemon."""
    pages = int(Path(f"/proc/{proxy.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def test_17_ten_thousand_half_open_heads_hold_nobody_up_and_are_given_up(
    service: Emulator, many_files: None
) -> None:
    with running_proxy(service.address, {"limits": {"head_timeout": "3s"}}) as proxy:
        assert proxy.get(MAC).status == 200
        with contextlib.ExitStack() as held:
            half_open = []
            for _ in range(MANY):
                wire = held.enter_context(socket.create_connection((proxy.host, proxy.port), 5))
                wire.sendall(GET[:40])
                half_open.append(wire)
            began = time.monotonic()
            assert proxy.get(MAC).status == 200
            assert time.monotonic() - began < 1.0
            assert resident(proxy) < 250
            half_open[-1].settimeout(10)
            (last,) = parsed(half_open[-1].recv(65536))
            assert (last.status, last.slug) == (408, "head-timeout")
            assert proxy.get(MAC).status == 200


def test_17_a_head_of_a_byte_now_and_then_is_given_up(service: Emulator) -> None:
    with (
        running_proxy(service.address, {"limits": {"head_timeout": "1s"}}) as proxy,
        socket.create_connection((proxy.host, proxy.port), 10) as wire,
    ):
        began = time.monotonic()
        wire.settimeout(0.2)
        raw = b""
        for byte in GET * 10:
            with contextlib.suppress(TimeoutError):
                raw = wire.recv(65536)
                break
            wire.sendall(bytes([byte]))
        (said,) = parsed(raw)
        assert said.slug == "head-timeout"
        assert 1.0 <= time.monotonic() - began < 4.0


def test_17_a_head_in_single_bytes_is_served(proxy: Proxy) -> None:
    (said,) = say((proxy.host, proxy.port), *(bytes([byte]) for byte in GET))
    assert said.status == 200


def test_17_ten_thousand_pipelined_requests_unread_are_bounded(proxy: Proxy) -> None:
    before = resident(proxy)
    with socket.create_connection((proxy.host, proxy.port), 10) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.setblocking(False)
        raw, sent = GET * MANY, 0
        until = time.monotonic() + 1
        while sent < len(raw) and time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                sent += wire.send(raw[sent : sent + 65536])
                continue
            time.sleep(0.01)
            assert proxy.get(MAC).status == 200
        assert resident(proxy) - before < 20
        assert proxy.get(MAC).status == 200


HOLDER = """
import encodings.idna, os, socket, sys, time
os.setgid(65534)
os.setuid(65534)
held = []
for _ in range(int(sys.argv[2])):
    try:
        wire = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
        wire.sendall(b"GET /latest/meta-data/mac HTTP/1.1\\r\\n")
        held.append(wire)
    except OSError:
        pass
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.root
def test_34_one_caller_cannot_hold_all_connections(service: Emulator) -> None:
    limits = {"connections": 100, "connections_per_caller": 60}
    with running_proxy(service.address, {"limits": limits}) as proxy:
        greedy = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(proxy.port), "300"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert greedy.stdout is not None
            assert greedy.stdout.readline() == "held\n"
            assert [proxy.get(MAC).status for _ in range(50)] == [200] * 50
        finally:
            greedy.kill()
            greedy.wait()
            if greedy.stdout:
                greedy.stdout.close()


def test_34_ever_new_paths_and_heads_grow_nothing_without_bound(proxy: Proxy) -> None:
    address = (proxy.host, proxy.port)

    def flood(kind: str, count: int) -> None:
        head = b"GET /latest/meta-data/%s-%d HTTP/1.1\r\nHost: 100.100.100.200\r\nX: %d\r\n\r\n"
        raw = b"".join(head % (kind.encode(), number, number) for number in range(count))
        assert len(say(address, raw + LAST, patience=2)) == count + 1

    flood("warm", 500)
    before = resident(proxy)
    flood("unique", 4000)
    assert resident(proxy) - before < 12


def test_34_refusals_fill_neither_the_log_nor_the_disk(service: Emulator) -> None:
    with running_proxy(service.address) as proxy:
        raw = (GET[:-2] + b"X-Forwarded-For: 1.2.3.4\r\n\r\n") * 5000
        began = time.monotonic()
        assert len(say((proxy.host, proxy.port), raw + LAST, patience=2)) == 5001
        seconds = time.monotonic() - began
        assert proxy.get(MAC).status == 200
        refused = [line for line in proxy.log() if line["event"] == "refused"]
        assert 1 <= len(refused) <= 50 + 10 * seconds + 1
