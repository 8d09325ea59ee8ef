"""One raw exchange, against bytes that were written down."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from imds_proxy.config import Address
from imds_proxy.doctor.exchange import LARGEST, Connection, ServiceError


@contextmanager
def serving(act: Callable[[socket.socket], None]) -> Iterator[Address]:
    """A server for one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                try:
                    act(peer)
                except OSError:
                    return  # the client has left

        thread = threading.Thread(target=accept)
        thread.start()
        yield Address("127.0.0.1", listener.getsockname()[1])
        thread.join()


def until_closed(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass


@pytest.mark.parametrize(
    ("raw", "end", "payload"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "length", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "chunked", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nok\n", "close", b"ok\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "close", b"ok"),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "length", b""),
    ],
)
def test_an_answer_is_kept_as_it_came(raw: bytes, end: str, payload: bytes) -> None:
    with serving(lambda peer: peer.sendall(raw)) as address, Connection(address) as connection:
        answer = connection.ask("GET", "/")
    assert (answer.end, answer.payload, answer.status) == (end, payload, 200)
    assert answer.status_line == raw.split(b"\r\n")[0].decode()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "closed"),
        (b"SSH-2.0-x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 ok\r\n\r\n", "not HTTP"),
        (b"HTTP", "closed"),
    ],
)
def test_what_is_no_answer_is_an_error(raw: bytes, said: str) -> None:
    with (
        serving(lambda peer: peer.sendall(raw)) as address,
        Connection(address) as connection,
        pytest.raises(ServiceError, match=said),
    ):
        connection.ask("GET", "/")


def test_a_silent_service_is_given_up_after_a_second() -> None:
    begin = time.monotonic()
    with (
        serving(until_closed) as address,
        Connection(address) as connection,
        pytest.raises(ServiceError, match="timed out"),
    ):
        connection.ask("GET", "/")
    assert time.monotonic() - begin < 3


def test_an_endless_body_is_cut() -> None:
    def flood(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            peer.sendall(b"x" * 65536)

    with serving(flood) as address, Connection(address) as connection:
        answer = connection.ask("GET", "/")
    assert answer.end == "limit"
    assert len(answer.body) <= LARGEST


def test_an_endless_head_is_an_error() -> None:
    def flood(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            peer.sendall(b"X: " + b"x" * 60000 + b"\r\n")

    with (
        serving(flood) as address,
        Connection(address) as connection,
        pytest.raises(ServiceError, match="endless head"),
    ):
        connection.ask("GET", "/")
