"""The load that the bench puts on a server, against a server that does what it is told."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import generator
from generator import Load

needs_a_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@contextmanager
def answering(answer: bytes, pause_at: int | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """A port that answers every head, and the heads; it stands still for 0.3 s at one of them."""
    heads: list[bytes] = []

    def serve(wire: socket.socket) -> None:
        with wire, suppress(ConnectionError):  # the load leaves when its time is over
            buffer = b""
            while data := wire.recv(65536):
                *whole, buffer = (buffer + data).split(b"\r\n\r\n")
                for head in whole:
                    heads.append(head)
                    if len(heads) == pause_at:
                        time.sleep(0.3)
                    wire.sendall(answer)
                    if b"Connection: close" in head:
                        return

    def accept() -> None:
        while True:
            try:
                wire, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(wire,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1], heads
        listening.shutdown(socket.SHUT_RDWR)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntoken"


def test_heads_are_distinct_and_a_session_begins_with_its_put() -> None:
    assert len(set(generator.heads(Load()))) == 200
    pair = generator.heads(Load("pair", distinct=3))
    assert pair[0].startswith("PUT /latest/api/token ")
    assert all("%TOKEN%" in head for head in pair[1:])
    assert all("Connection: close\r\n" in head for head in generator.heads(Load("once")))


def test_a_sample_tells_rate_cpu_and_latency_and_an_error_is_one() -> None:
    said = '{"seconds": 2.0, "requests": 100, "failed": 0, "broken": 0, "dropped": 0, '
    said += '"p50_us": 1.0, "p99_us": 2.0, "p999_us": 3.0}'
    assert generator.sample(said, 0.001) == generator.Sample(50.0, 10.0, 1.0, 2.0, 3.0)
    with pytest.raises(RuntimeError, match="7 refused"):
        generator.sample(said.replace('"failed": 0', '"failed": 7'), 0.0)
    with pytest.raises(RuntimeError, match="no request was answered"):
        generator.sample(said.replace('"requests": 100', '"requests": 0'), 0.0)


@needs_a_compiler
@pytest.mark.parametrize("mode", ["keep", "once", "pair"])
def test_each_mode_asks_as_it_says(mode: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with answering(OK) as (port, heads):
        load = Load(mode, callers=2, connections=1, distinct=4)
        taken = generator.run(load, port, 0.3, 0.0, tmp_path, lambda: 0.0)
    assert taken.rate > 0
    asked = set(heads)
    assert len([head for head in asked if head.startswith(b"GET")]) == 4
    if mode == "pair":
        assert any(head.startswith(b"PUT") for head in asked)
        assert all(b"token" in head for head in asked if head.startswith(b"GET"))


@needs_a_compiler
def test_latency_counts_from_when_a_request_was_due(tmp_path: Path) -> None:
    """A pause of 0.3 s keeps the requests waiting that were due meanwhile: no omission is coordinated."""
    tmp_path.chmod(0o755)
    with answering(OK, pause_at=150) as (port, _):
        load = Load(callers=1, connections=1, rate=200, distinct=2)
        taken = generator.run(load, port, 2.0, 0.3, tmp_path, lambda: 0.0)
    assert taken.p99 > 200_000
